"""What training minimises: one file for each published loss."""

"""What pre-training minimises, one file each; chosen by ``objective=``."""

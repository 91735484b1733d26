"""What runs leave and share: records, identity, locks."""

"""What the groups run as processes of their own."""

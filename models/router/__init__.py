"""What a bundle knows about the router: the thresholds that its users prefer, what users get."""

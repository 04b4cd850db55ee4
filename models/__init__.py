"""What a trained model is, and the registry that publishes and loads bundles of them. Trains nothing, loads no pickle."""

"""What can be chosen: names, configs and the registry of models, as plain values; nothing here imports torch."""

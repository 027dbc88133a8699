"""What makes a hidden gradient visible again: networks with the same answers that attacks can follow."""

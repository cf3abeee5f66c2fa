"""Other gradients than backpropagation through time, and the penalties and clips that training adds to it."""

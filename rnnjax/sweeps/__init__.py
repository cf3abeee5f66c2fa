"""Many runs as few compiled programs: a grid of configs, lanes on devices, and where they are run."""

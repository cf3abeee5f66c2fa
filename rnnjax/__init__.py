"""rnnjax: write a recurrent cell as a few pure functions; training, sweeps and gradient diagnostics follow."""

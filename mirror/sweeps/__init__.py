"""Many runs: grids that know what is finished, and searches by Optuna."""

"""What decides how JAX computes: the config, and never a variable of the environment."""

import jax

# Every setting of JAX that changes what a run computes, at JAX's own default: an environment variable sets each of them
# too, and what an environment says is recorded nowhere. float64 follows from the config; a device is named by the user.
NUMERICS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_allow_f16_reductions": True,
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_compiler_enable_remat_pass": True,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
}


def set_numerics(dtype: str = "float32") -> None:
    """Sets all of NUMERICS, and makes float64 possible where it is the `dtype` and nowhere else."""
    known = jax.config.values
    for name, value in (NUMERICS | {"jax_enable_x64": dtype == "float64"}).items():
        if name in known:  # another version of JAX may have fewer
            jax.config.update(name, value)

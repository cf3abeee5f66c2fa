"""The devices of this process and how JAX computes on them: as the config says, and never as the environment does.

These functions change settings of JAX for the whole process: they are for a program that owns it, and no library code
calls them.
"""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import jax

from rnnjax.training.config import Config
from rnnjax.training.settings import BadSetting

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


def prepare_devices(config: Config, start: bool = True) -> None:
    """Makes each core that this process may use a device, and JAX compute what `config` says, whatever the environment.

    `start=False` leaves JAX's devices alone, for `jax.distributed` to start. Raises BadSetting where there are none.
    """
    set_numerics(config.dtype)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX has started already, with the devices that it has
            jax.config.update("jax_num_cpu_devices", usable_cores())
    if start:
        device_info()


def set_numerics(dtype: str = "float32") -> None:
    """Sets all of NUMERICS, and makes float64 possible where it is the `dtype` and nowhere else."""
    known = jax.config.values
    for name, value in (NUMERICS | {"jax_enable_x64": dtype == "float64"}).items():
        if name in known:  # another version of JAX may have fewer
            jax.config.update(name, value)


def usable_cores() -> int:
    """The cores that this process may use: those of its affinity, and no more than its cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup of version 2, or "max": no quota
        return cores


def device_info() -> dict[str, Any]:
    """What a run is computed on, for config.json: the devices, and `numbers`, what changes numbers.

    Raises BadSetting where JAX has no such device.
    """
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise BadSetting(
            f"JAX_PLATFORMS={jax.config.jax_platforms}: no such device here; allowed: cpu, or unset"
        ) from error
    about = {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)}
    flags = os.environ.get("XLA_FLAGS")
    return {
        "devices": about | ({"xla_flags": flags} if flags else {}),
        "numbers": {
            "platform": devices[0].platform,
            "x64": jax.config.jax_enable_x64,
            "prng": jax.config.jax_default_prng_impl,
            "threefry_partitionable": jax.config.jax_threefry_partitionable,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        },
    }

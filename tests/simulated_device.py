"""A simulated second device, to test the placement of tensors on a machine without a GPU.

A `DeviceTensor` reports the device "meta" and computes on an ordinary tensor that it wraps. As on a
GPU, mixing it with an ordinary tensor raises, what is created "like" it is on the device as well,
and only `.cpu()` brings it back. Within `simulated_device()`, `device="meta"` creates tensors there
and moves them there, so that whole fits run with the data on one device and the rest on another.
"""

import warnings
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("meta")
MAY_MIX = {"copy_", "_to_copy", "set_"}
MAY_HAVE_HOST_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_"}


class DeviceTensor(torch.Tensor):
    supports_float64 = True

    @staticmethod
    def __new__(cls, host):
        if host.dtype == torch.float64 and not DeviceTensor.supports_float64:
            raise TypeError("The simulated device has no float64.")
        on_device = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=DEVICE,
        )
        on_device.host = host
        return on_device

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def new_tensor(self, data, **kwargs):
        # A tensor of torch's "meta" holds no numbers.
        return DeviceTensor(self.host.new_tensor(data, **kwargs))

    def tolist(self):
        return self.host.tolist()

    def __repr__(self, *, tensor_contents=None):
        return f"DeviceTensor({self.host})"


class _DeviceMode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


class _FromData(TorchFunctionMode):
    """Creates device tensors from data; those of torch's "meta" hold no numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None:
            return func(*args, **{**kwargs, "device": None}).to(device)
        return func(*args, **kwargs)


class _Generator:
    """Creates the generator of the device that the simulated one computes on."""

    def __new__(cls, device="cpu"):
        return _make_generator("cpu" if torch.device(device) == DEVICE else device)


_make_generator = torch.Generator


@contextmanager
def simulated_device(supports_float64=True):
    """Make the device "meta" hold numbers; without float64, as on Apple's GPUs."""
    torch.Generator = _Generator
    DeviceTensor.supports_float64 = supports_float64
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    # A wrapper has no storage for a parameter to use.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _DeviceMode(), _FromData(), warnings.catch_warnings():
            # torch does not know that this "meta" can be copied to.
            warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")
            yield DEVICE
    finally:
        torch.Generator = _make_generator
        DeviceTensor.supports_float64 = True
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def to_host(values):
    """Return the ordinary tensors that device tensors wrap."""
    return tree_map(lambda v: v.host if isinstance(v, DeviceTensor) else v, values)


def dispatch(func, args, kwargs):
    """Compute on the host, and return the result on the device where a GPU would."""
    leaves, spec = tree_flatten((args, kwargs))
    is_on_device = any(isinstance(leaf, DeviceTensor) for leaf in leaves)
    if "device" in kwargs and kwargs["device"] is not None:
        goes_to_device = torch.device(kwargs["device"]) == DEVICE
    else:
        goes_to_device = is_on_device
    if is_on_device:
        _check_mix(func, args, leaves)
    host_args, host_kwargs = tree_unflatten(to_host(leaves), spec)
    if host_kwargs.get("device") is not None and goes_to_device:
        host_kwargs["device"] = torch.device("cpu")
    result = func(*host_args, **host_kwargs)
    if not goes_to_device:
        return result
    known = {id(leaf.host): leaf for leaf in leaves if isinstance(leaf, DeviceTensor)}

    def to_device(value):
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else DeviceTensor(value)

    result = tree_map(to_device, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if is_on_device else result


def _check_mix(func, args, leaves):
    name = func._schema.name.removeprefix("aten::")
    if name in MAY_MIX:
        return
    if name in MAY_HAVE_HOST_INDICES:
        leaves = [args[0], *args[2:]]
    host = [v for v in leaves if isinstance(v, torch.Tensor) and not isinstance(v, DeviceTensor)]
    if not host:
        return
    changes_host = func._schema.is_mutable and not isinstance(args[0], DeviceTensor | list | tuple)
    # An elementwise operation may combine numbers on the CPU with tensors on a GPU.
    are_numbers = all(v.dim() == 0 for v in host) and torch.Tag.pointwise in func.tags
    if changes_host or not are_numbers:
        shapes = [tuple(v.shape) for v in host]
        raise RuntimeError(
            f"{func} mixes devices: tensors of shapes {shapes} are not on the device of the others."
        )

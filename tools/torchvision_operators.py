"""Declare the operators that a torchvision wheel built for CUDA cannot load beside a CPU build of torch.

`repair_torchvision.py` copies this file into site-packages and has every interpreter there import it at start, so that
child processes (`accelerate launch`, data loader workers) inherit it. It waits for `torchvision.extension`, which is where
torchvision loads its compiled operators, and then declares the schemas that are still missing and that torchvision cannot
be imported without. Where the operators did load, nothing is missing and nothing happens.

The image and video transforms are plain torch and work. `torchvision.ops` and `torchvision.io` keep raising torchvision's
own error about missing operators.
"""

# Every start of an interpreter pays for these imports: `importlib.abc` alone would double it.
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries = []  # a declaration lives as long as its library


def declare_missing_operators() -> list[str]:
    """Declare the operators that did not load, and return their names."""
    import torch  # an interpreter that does not use torch must not pay for it

    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        _libraries.append(library)
        for name in missing:
            library.define(SCHEMAS[name])
    return missing


class _ExtensionLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        declare_missing_operators()


class _ExtensionFinder:
    def find_spec(
        self, fullname: str, path: list[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision.extension":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _ExtensionLoader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _ExtensionFinder())

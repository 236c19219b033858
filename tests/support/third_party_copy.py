"""Our own code under another name, as a package of somebody else: with a fault in it, or without."""

import importlib
import re
import shutil
from pathlib import Path

import vq_reference
from vq_reference.testing.adapters.ready.simvq import sim_vq
from vq_reference.testing.mutants import AUXILIARY_MUTANTS, LASTING_MUTANTS

LIBRARY = Path(vq_reference.__file__).parent
TERMS = "vq_reference.testing.adapters.torch.auxiliary_terms"


def write(folder, package, fault=None):
    """Write the library to a folder as a package of that name, and beside it the adapters of its layers."""
    shutil.rmtree(folder / package, ignore_errors=True)
    (folder / package / "nn").mkdir(parents=True)
    sources = {file: f"vq_reference.{file.stem}" for file in LIBRARY.glob("*.py")}
    sources |= {file: f"vq_reference.nn.{file.stem}" for file in (LIBRARY / "nn").glob("*.py")}
    sources |= {Path(__file__).with_name("oracle_as_module.py"): "vq_reference.oracle_as_module"}
    for file, module in sources.items():
        text = file.read_text("utf-8")
        if fault and fault.module == module:
            text = text.replace(fault.replace, fault.by)
        place = folder.joinpath(*module.replace("vq_reference", package).split(".")).with_suffix(".py")
        place.write_text(re.sub(r"\bvq_reference\b", package, text), encoding="utf-8")
    (folder / package / "__init__.py").write_text("", encoding="utf-8")
    for name, place in (("vector_quantize", "ready"), ("auxiliary_terms", "torch")):
        text = (LIBRARY / "testing" / "adapters" / place / f"{name}.py").read_text("utf-8")
        text = text.replace("vq_reference.nn", f"{package}.nn").replace(TERMS, f"{package}_auxiliary_terms")
        (folder / f"{package}_{name}.py").write_text(text, encoding="utf-8")


def adapter_of(package, fault):
    """Return that package's layer, of the kind that has this fault; its folder is on the path."""
    if fault.name in {**LASTING_MUTANTS, **AUXILIARY_MUTANTS}:
        layers = importlib.import_module(f"{package}_vector_quantize")
        if fault.module.endswith(".residual"):
            return layers.residual_quantizer()
        return layers.vector_quantize(fault.killed_by.startswith("compiled"))
    module = "nn" if fault.module.startswith("vq_reference.nn.") else "oracle_as_module"
    return sim_vq(package, importlib.import_module(f"{package}.{module}").SimVQ, {package: "1"})

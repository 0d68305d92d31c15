"""Routes of modules. Any key reads what there is; the operator's adds and removes."""

from sandpost.api import requests
from sandpost.api.route import PAGING, Answer, Asked, Route
from sandpost.api.service import Service
from sandpost.api.views import Collection, Modules, ModulesAsked, ModuleView
from sandpost.model.errors import ConfigError, InvalidValue
from sandpost.model.specs import parse_spec, unknown
from sandpost.model.units import parse_duration

_SPEC = "The module, such as `npm:lodash@4.17.21` or `pypi:httpx==0.28.1`"


async def list_modules(service: Service, asked: Asked) -> Answer:
    """List modules, or one with the hashes of all that is in it."""
    after, limit = requests.page(asked.query)
    records = await service.modules.listing()
    if "spec" in asked.query:
        spec = str(parse_spec(asked.query["spec"]))
        return Answer(200, Modules(modules=[ModuleView.of(one, whole=True) for one in records if one.spec == spec]))
    rest = [one for one in records if one.spec > after]
    views = [ModuleView.of(one) for one in rest[:limit]]
    return Answer(200, Modules(modules=views, next=views[-1].spec if len(rest) > limit else None))


async def add_modules(service: Service, asked: Asked) -> Answer:
    """Queue modules, and show how they stand."""
    body: ModulesAsked = asked.body
    records = await service.modules.add([parse_spec(text) for text in body.modules], scripts=body.scripts)
    return Answer(202, Modules(modules=[ModuleView.of(one) for one in records]))


async def remove_module(service: Service, asked: Asked) -> Answer:
    """Remove one module; what has its files open goes on."""
    if "spec" not in asked.query:
        raise InvalidValue("which module? Write its name behind `?spec=`, as `sandpost module ls` shows it")
    spec = parse_spec(asked.query["spec"])
    if not await service.modules.remove([spec]):
        raise unknown(spec)
    return Answer(204)


async def collect_modules(service: Service, asked: Asked) -> Answer:
    """Remove what failed, and versions that are neither new nor young."""
    body: Collection = asked.body
    removed = await service.modules.collect(keep=body.keep, older_than=_seconds(body.older_than))
    return Answer(200, Modules(modules=[ModuleView.of(one) for one in removed]))


def _seconds(text: float | str | None) -> float | None:
    if not isinstance(text, str):
        return text
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise InvalidValue(f"`older_than`: {error.message}") from None


ROUTES = (
    Route(
        method="GET",
        path="/api/modules",
        name="listModules",
        summary="List the modules of npm and PyPI that programs may use, and those that were asked for.",
        work=list_modules,
        gives={200: Modules},
        query={**PAGING, "spec": f"{_SPEC}: it alone, with the hashes of all that is in it."},
        tenant_may=True,
    ),
    Route(
        method="POST",
        path="/api/modules",
        name="addModules",
        summary="Queue modules to be installed; ask with GET how they stand. What is there already stays as it is.",
        work=add_modules,
        gives={202: Modules},
        takes=ModulesAsked,
    ),
    Route(
        method="DELETE",
        path="/api/modules",
        name="removeModule",
        summary="Remove a module, whatever its state.",
        work=remove_module,
        gives={204: None},
        query={"spec": f"{_SPEC}."},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/modules/gc",
        name="collectModules",
        summary="Remove what failed, and older versions as the body says; show what was removed.",
        work=collect_modules,
        gives={200: Modules},
        takes=Collection,
    ),
)

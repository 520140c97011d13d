"""Write the download in another form: fadrm-<key>-ipc<I>-<form>.<suffix>, one file."""

from __future__ import annotations

from engine.context import Context, Telling
from engine.data import images_of, real_data
from engine.errors import Drained
from engine.events import Progress, Started
from engine.export import FORMS
from engine.export.material import Material
from engine.params import ExportParams


def export(context: Context[ExportParams]) -> Telling:
    """One pass over the images, or over the labels' epochs. An interrupted one begins anew: it computes nothing."""
    params, data = context.params, real_data(context.folder("data"))
    material = Material(
        images=images_of(context.folders("images"))[: params.ipc],
        classes=data.classes,
        statistics=data.statistics,
        labels=context.folder("labels"),
        params=params,
    )
    form = FORMS[params.form]
    total = params.labels.epochs if form.unit == "epochs" else material.count
    path = context.out / f"fadrm-{context.key[:12]}-ipc{params.ipc}-{params.form}{form.suffix}"
    yield Started(total=total, unit=form.unit, device="cpu")
    for done in form.write(material, path):
        if context.stop():
            raise Drained("stopped while exporting; it begins anew")
        yield Progress(done=done, total=total, unit=form.unit)
    return {"file": path.name, "size_bytes": path.stat().st_size, "images": material.count}

"""What is here: ``aqcf models``, ``aqcf doctor``."""

# ruff: noqa: PLC0415

import typer

from .common import FAILURE, StateOption, app, settings_of, told_errors


@app.command()
def models() -> None:
    """List the installed models (AQCF_MODELS_DIR)."""
    with told_errors():
        from .. import console
        from ..registry import ModelRegistry

        settings = settings_of()
        registry = ModelRegistry(settings.models_dir, settings.default_model)
        if registry.all():
            console.out.print(console.models_table(registry))
        else:
            console.out.print("no model is installed")
        for broken in registry.broken():
            console.err.print(f"unusable: {broken.error}", markup=False)
        if all(folder.spec.id != settings.default_model for folder in registry.all()):
            console.err.print(
                f"the default model {settings.default_model!r} is not installed in "
                f"{settings.models_dir}; set AQCF_MODELS_DIR or AQCF_DEFAULT_MODEL",
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(FAILURE)


@app.command()
def doctor(state: StateOption = None) -> None:
    """Check what runs here: engines, GPU, codecs, model hashes, disk. Exits with 1 when something
    that is needed is missing."""
    with told_errors():
        from ..doctor import examine_machine

        missing = False
        for check in examine_machine(settings_of(state_dir=state)):
            word = "OK" if check.ok else "FAIL" if check.needed else "--"
            missing |= check.needed and not check.ok
            typer.echo(f"{word:<5}{check.name:<44} {check.detail}".rstrip())
        if missing:
            raise typer.Exit(FAILURE)

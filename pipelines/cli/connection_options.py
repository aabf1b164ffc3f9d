"""The options of all commands that speak with Kubeflow Pipelines."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

OPTIONS: dict[str, tuple[Any, Any]] = {
    "host": (
        Annotated[str | None, typer.Option(help="URL of Kubeflow Pipelines; default: the cluster we run in.")],
        None,
    ),
    "namespace": (Annotated[str | None, typer.Option(help="Namespace, of a multi-user installation.")], None),
    "token_file": (Annotated[Path | None, typer.Option(help="File with a bearer token.")], None),
    "cookies_file": (Annotated[Path | None, typer.Option(help="File with the cookies of a signed-in browser.")], None),
    "ca_cert": (Annotated[Path | None, typer.Option(help="CA certificate of the server.")], None),
    "insecure": (Annotated[bool, typer.Option("--insecure", help="Do not check the server's certificate.")], False),
}


def with_connection(command: Callable) -> Callable:
    """Adds the options to a command, which gets `connect`: a function that returns the `Server` they describe.

    Its keyword arguments are further fields of the `Connection`.
    """
    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "connect"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in OPTIONS.items()
    ]

    @functools.wraps(command)
    def with_options(**arguments: Any) -> Any:
        options = {name: arguments.pop(name) for name in OPTIONS}

        def connect(**changes: Any):
            from stillhouse.pipelines.kubeflow.connection import Connection, Server

            return Server(Connection(verify_tls=not options.pop("insecure"), **options, **changes))

        return command(connect=connect, **arguments)

    signature = inspect.Signature([*own, *added])
    with_options.__signature__ = signature  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    del with_options.__wrapped__
    return with_options

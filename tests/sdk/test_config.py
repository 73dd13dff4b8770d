"""`define_config` checks every key; discovery finds and loads task files, and explains what does not load."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from detent import Config, ConfigError, Console, Machine, Retention, Retries, Retry, Telemetry, define_config
from detent.sdk import discovery
from detent.sdk.registry import registry


@pytest.fixture(autouse=True)
def restored_imports() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, **files: str) -> Path:
    """Write files: `tasks__billing` is tasks/billing.py; `package` stands for an `__init__`."""
    for name, text in files.items():
        file = folder / (name.replace("__", "/").replace("package", "__init__") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def task_named(name: str, before: str = "") -> str:
    return f"{before}\nfrom detent import task\n\n@task\nasync def {name}(payload: int) -> None: ...\n"


# ---- define_config ----


def test_config_keeps_what_it_was_given() -> None:
    config = define_config(
        project="proj_shop", dirs=["../sdk"], retries=Retries(enabled_in_dev=False, default=Retry(max_attempts=5)),
        max_duration="1h", log_level="debug",
    )  # fmt: skip

    assert (config.project, config.dirs, config.max_duration, config.log_level) == (
        "proj_shop",
        ("../sdk",),
        3600.0,
        "debug",
    )
    assert not config.retries.enabled_in_dev
    assert config.retries.default.max_attempts == 5
    assert config.root == Path(__file__).parent


@pytest.mark.parametrize(("ttl", "seconds"), [("1d", 86_400.0), (0, 0.0), (None, None)])
def test_ttl_of_nothing_is_told_from_one_that_was_not_given(ttl: Any, seconds: float | None) -> None:
    assert define_config(ttl=ttl).ttl == seconds


def test_config_needs_nothing() -> None:
    config = define_config()

    assert (config.project, config.dirs, config.max_duration, config.log_level) == ("sdk", (), None, "info")
    assert config.retries == Retries()
    assert config.retries.enabled_in_dev
    assert config.retention == Retention(default="30d")


def test_retention_may_be_for_ever() -> None:
    assert define_config(retention=None).retention == Retention(default=None)


def test_own_machines_may_be_named_and_may_replace_a_preset() -> None:
    own = {"gpu-box": Machine(cpu=8, memory_gb=32), "micro": Machine(cpu=1, memory_gb=1)}
    config = define_config(machine="gpu-box", machines=own)

    assert (config.machine, config.machines) == ("gpu-box", own)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"projct": "x"}, "unknown key 'projct'; did you mean \"project\"?"),
        ({"project": ""}, "project='' must be the project's name"),
        ({"dirs": ["nowhere"]}, "dirs names 'nowhere', which is no folder of"),
        ({"dirs": 5}, "dirs=5 must be a list of folders"),
        ({"retries": Retry()}, "must be Retries("),
        ({"max_duration": "long"}, "max_duration: 'long' is no duration"),
        ({"max_duration": 0}, "max_duration must be longer than 0 s"),
        ({"retention": "30d"}, "retention='30d' must be Retention(default="),
        ({"log_level": "warning"}, "log_level='warning' is none; did you mean \"warn\"?"),
        ({"machine": "small-1"}, "machine: there is no machine 'small-1'; did you mean \"small-1x\"?"),
        ({"machine": 2}, "machine: 2 must be the name of a machine"),
        ({"machines": {"box": 8}}, 'must be machines by their names, as in {"gpu-box": Machine(cpu=8, memory_gb=32)}'),
        ({"machines": {" ": Machine(cpu=1, memory_gb=1)}}, "machine: ' ' must be printable text"),
        ({"ttl": "long"}, "ttl: 'long' is no duration"),
        ({"ignore_patterns": 5}, "ignore_patterns=5 must be a list of patterns"),
        ({"ignore_patterns": [""]}, "must be a list of patterns"),
        ({"console": True}, "console=True must be Console(echo=..., capture=...)"),
        ({"process_keep_alive": 0}, "process_keep_alive=0 must be the runs of one process: 1 or more, or True for 50"),
        ({"process_keep_alive": "50"}, "process_keep_alive='50' must be the runs of one process"),
        ({"extra_ca_certs": "none.pem"}, "extra_ca_certs='none.pem' must be a PEM file, and"),
        ({"extra_ca_certs": "conftest.py"}, "is no PEM file: it holds no"),
        ({"maxDuration": 60}, "unknown key 'maxDuration'; did you mean \"max_duration\"?"),
        ({"logLevel": "info"}, "did you mean \"log_level\"?"),
        ({"processKeepAlive": True}, "did you mean \"process_keep_alive\"?"),
        ({"extraCACerts": "./ca.crt"}, "the key extraCACerts is none here: write extra_ca_certs"),
        ({"enableConsoleLogging": True}, "what runs print is shown by console=Console(echo=True)"),
        ({"disableConsoleInterceptor": True}, "what runs print is not kept with console=Console(capture=False)"),
        ({"telemetry": {}}, "telemetry={} must be Telemetry(exporters=[...], ...)"),
        ({"telemetry": Telemetry(exporters=ConsoleSpanExporter())}, "telemetry: exporters=<"),  # type: ignore[arg-type]
        ({"telemetry": Telemetry(exporters=[ConsoleSpanExporter])}, "; this is a class: call it"),  # type: ignore[list-item]
        ({"telemetry": Telemetry(log_exporters=[ConsoleSpanExporter()])}, "; this one goes into exporters"),  # type: ignore[list-item]
        ({"telemetry": Telemetry(metric_readers=["a"])}, "metric_readers[0]='a' must be a MetricReader of opentelemetry.sdk"),  # type: ignore[list-item]
        ({"telemetry": Telemetry(instrumentations=[5])}, "instrumentations[0]=5 must be an instrumentation"),  # type: ignore[list-item]
        ({"telemetry": Telemetry(resource={"a": object()})}, "resource: a=<object"),  # type: ignore[dict-item]
        ({"telemetry": Telemetry(resource=[])}, "resource=[] must be attributes by their names"),  # type: ignore[arg-type]
        ({"build": {}}, "the key build is not available yet"),
        ({"runtime": "node"}, "the runtime is the Python that starts the worker"),
        ({"legacyDevProcessCwdBehaviour": True}, "runs always start in the project's folder"),
        ({"tsconfig": "x"}, "there is no TypeScript here"),
        ({"onSuccess": print}, "write the hook in a file of tasks, such as init.py: @tasks.on_success"),
        ({"on_start": print}, "@tasks.on_start_attempt"),
        ({"triggerDirectories": []}, "write dirs"),
        ({"init": print}, "write a file init.py into the folder of tasks"),
        ({"experimental_instrumentations": []}, "write telemetry=Telemetry(instrumentations=[...])"),
    ],
)
def test_bad_key_is_refused_naming_the_file(keys: Any, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        define_config(**keys)

    assert why in str(refused.value)
    assert str(refused.value).startswith("tests/sdk/test_config.py:")


def test_keys_that_say_what_becomes_of_output_and_processes(tmp_path: Path) -> None:
    write(tmp_path, detent_config="""
from detent import Console, define_config
config = define_config(console=Console(echo=False, capture=False), process_keep_alive=True, extra_ca_certs="./ca.pem")
""")  # fmt: skip
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    config = discovery.load_config(tmp_path)
    assert (config.console, config.process_keep_alive) == (Console(echo=False, capture=False), 50)
    assert config.extra_ca_certs == str(tmp_path / "ca.pem")

    default = define_config()
    assert (default.console, default.process_keep_alive, default.extra_ca_certs) == (Console(), 1, None)


def test_telemetry_is_kept_as_it_is_given_and_off_without_anything_to_tell() -> None:
    exporter = ConsoleSpanExporter()
    config = define_config(telemetry=Telemetry(exporters=[exporter], resource={"service.name": "shop", "cores": [1, 2]}))
    assert (config.telemetry.exporters, config.telemetry.is_on) == ((exporter,), True)
    assert define_config().telemetry == define_config(telemetry=Telemetry(log_exporters=[])).telemetry
    assert not define_config(telemetry=Telemetry(resource={"service.name": "shop"})).telemetry.is_on


def test_without_opentelemetry_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(ConfigError, match=r'telemetry: it needs OpenTelemetry, .*: install "detent\[telemetry\]"'):
        define_config(telemetry=Telemetry())
    write(tmp_path, detent_config="from opentelemetry.sdk import trace\n")
    with pytest.raises(ConfigError, match=r'ModuleNotFoundError: .*; install "detent\[telemetry\]"'):
        discovery.load_config(tmp_path)


def test_readers_of_a_process_that_executes_nothing_are_ended_silently(caplog: pytest.LogCaptureFixture) -> None:
    before = threading.active_count()
    telemetry = Telemetry(metric_readers=[PeriodicExportingMetricReader(ConsoleMetricExporter())])
    assert threading.active_count() == before + 1
    telemetry.dismiss()
    assert (threading.active_count(), caplog.messages) == (before, [])


def test_given_patterns_take_the_place_of_those_of_tests(tmp_path: Path) -> None:
    write(
        tmp_path,
        detent_config="from detent import define_config\n"
        "config = define_config(ignore_patterns=['legacy_*.py', 'tasks/old/**'])\n",
        tasks__legacy_mail="",
        tasks__old__deep__a="",
        tasks__test_kept="",
        tasks__mail="",
    )
    files = discovery.task_files(discovery.load_config(tmp_path))
    assert [file.name for file in files] == ["mail.py", "test_kept.py"]


def test_environment_variable_goes_before_the_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_LOG_LEVEL", "error")

    assert define_config(log_level="debug").log_level == "error"


# ---- loading the config ----


def test_config_is_found_from_any_folder_below(tmp_path: Path) -> None:
    write(
        tmp_path,
        detent_config='from detent import define_config\nconfig = define_config(project="p")\n',
        src__deep__x="",
    )

    config = discovery.load_config(tmp_path / "src" / "deep")

    assert (config.project, config.root) == ("p", tmp_path)


def test_project_without_config_has_defaults(tmp_path: Path) -> None:
    config = discovery.load_config(tmp_path)

    assert (config.project, config.root, config.dirs) == (tmp_path.name, tmp_path, ())


def test_config_file_must_set_config(tmp_path: Path) -> None:
    write(tmp_path, detent_config="configuration = 5\n")

    with pytest.raises(ConfigError, match=r"detent_config\.py must set config = define_config\(\.\.\.\)"):
        discovery.load_config(tmp_path)


# ---- discovery ----


def test_tasks_are_found_in_folders_named_for_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        tasks__billing=task_named("charge"), tasks__mail__send=task_named("send"), app__trigger__report=task_named("report"),
        app__views="raise SystemExit", tasks__test_billing="raise SystemExit", tasks__conftest="raise SystemExit",
        tasks__tests__helper="raise SystemExit", tasks__billing_test="raise SystemExit",
    )  # fmt: skip

    discovery.discover(discovery.load_config(tmp_path))

    assert [task.id for task in registry.all()] == ["charge", "report", "send"]


def test_tasks_are_found_in_the_folders_of_the_config(tmp_path: Path) -> None:
    write(tmp_path, jobs__a=task_named("a"), tasks__b=task_named("b"))

    discovery.discover(Config(project="p", root=tmp_path, dirs=("jobs",)))

    assert [task.id for task in registry.all()] == ["a"]


def test_init_of_a_folder_is_loaded_first(tmp_path: Path) -> None:
    write(tmp_path, tasks__a="import sys\nassert sys.was_first\n", tasks__init="import sys\nsys.was_first = True\n")

    assert len(discovery.discover(discovery.load_config(tmp_path))) == 2
    del sys.was_first  # type: ignore[attr-defined]


def test_one_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    write(tmp_path, hello=task_named("hello"))

    (module,) = discovery.discover(tmp_path / "hello.py")

    assert registry.get("hello") is module.hello
    assert module.__name__ == "hello"


@pytest.mark.parametrize("name", ["json", "my-tasks", "detent"])
def test_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: task_named("hello")})

    discovery.discover(tmp_path / f"{name}.py")

    assert registry.get("hello") is not None


def test_files_may_import_each_other(tmp_path: Path) -> None:
    write(
        tmp_path,
        tasks__a=task_named("a", "from tasks.shared import LIMIT\nfrom tasks.b import b"),
        tasks__b=task_named("b"),
        tasks__shared="LIMIT = 5\n",
    )

    modules = {module.__name__: module for module in discovery.discover(discovery.load_config(tmp_path))}

    assert set(modules) == {"tasks.a", "tasks.b", "tasks.shared"}
    assert registry.get("b") is modules["tasks.a"].b


def test_package_is_loaded_under_its_own_name(tmp_path: Path) -> None:
    write(tmp_path, src__shop__package="", src__shop__tasks__package="", src__shop__tasks__a=task_named("a"))

    modules = discovery.discover(discovery.load_config(tmp_path))

    assert [module.__name__ for module in modules] == ["shop.tasks", "shop.tasks.a"]


def test_task_under_a_private_name_is_found(tmp_path: Path) -> None:
    write(tmp_path, tasks__a=task_named("_resize"))

    discovery.discover(discovery.load_config(tmp_path))

    assert registry.get("_resize") is not None


def test_tasks_of_an_installed_package_are_found_when_a_file_of_tasks_imports_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "site-packages", acme__package="", acme__mail=task_named("acme_send"))
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    write(tmp_path / "shop", tasks__a="import acme.mail\n" + task_named("a"))

    discovery.discover(discovery.load_config(tmp_path / "shop"))

    assert [task.id for task in registry.all()] == ["a", "acme_send"]


def test_loading_twice_gives_the_same_modules(tmp_path: Path) -> None:
    write(tmp_path, tasks__a=task_named("a"))
    config = discovery.load_config(tmp_path)

    assert discovery.discover(config) == discovery.discover(config)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("x = 1\nraise ValueError('boom')\n", r"cannot load .*billing\.py:2: ValueError: boom"),
        ("import nowhere\n", r"cannot load .*billing\.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("def f(:\n", r"cannot load .*billing\.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"cannot load .*billing\.py:2: SystemExit: 3"),
        (
            "from detent import task\n@task(retri=3)\ndef f(): ...\n",
            r"cannot load .*billing\.py:\d: DefinitionError: task \"f\" in",
        ),
    ],
)
def test_file_that_does_not_load_is_named_with_the_cause(tmp_path: Path, code: str, why: str) -> None:
    write(tmp_path, tasks__billing=code)

    with pytest.raises(ConfigError, match=why):
        discovery.discover(discovery.load_config(tmp_path))


def test_project_without_tasks_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no folder named tasks or trigger; make one"):
        discovery.discover(discovery.load_config(tmp_path))
    with pytest.raises(ConfigError, match="there is no file or folder"):
        discovery.discover(tmp_path / "nowhere.py")

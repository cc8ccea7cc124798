"""Flag before environment before file before default, and nothing misspelt is passed over."""

from pathlib import Path

import pytest
from slipway_client.channel import TOKEN_KEY
from slipway_client.cli.settings import TABLE, Settings, SettingsInvalid, resolve
from slipway_client.connection import token_metadata


def config(directory: Path, text: str) -> dict[str, str]:
    """An environment whose configuration file has this text."""
    (directory / "slipway").mkdir()
    (directory / "slipway" / "config.toml").write_text(text)
    return {"XDG_CONFIG_HOME": str(directory)}


def test_defaults(tmp_path: Path) -> None:
    expected = Settings(registry="127.0.0.1:50051", runner="127.0.0.1:50061", hf_token="")
    assert resolve({}, {"HOME": str(tmp_path)}) == expected


def test_precedence(tmp_path: Path) -> None:
    environment = config(tmp_path, 'registry = "file:1"\nrunner = "file:2"\nhf_token = "file"\n')
    assert resolve({}, environment) == Settings("file:1", "file:2", "file")
    environment |= {"SLIPWAY_REGISTRY": "environment:1", "SLIPWAY_HF_TOKEN": "environment"}
    assert resolve({}, environment) == Settings("environment:1", "file:2", "environment")
    assert resolve({"registry": "flag:1", "runner": None}, environment).registry == "flag:1"


def test_the_home_directory_has_the_file(tmp_path: Path) -> None:
    (tmp_path / ".config").mkdir()
    config(tmp_path / ".config", 'runner = "home:1"\n')
    assert resolve({}, {"HOME": str(tmp_path)}).runner == "home:1"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('runner = "mine:1"\n')
    assert resolve({}, {}, file).runner == "mine:1"
    assert resolve({}, {"SLIPWAY_CONFIG": str(file)}).runner == "mine:1"
    for path, environment in ((tmp_path / "none.toml", {}), (None, {"SLIPWAY_CONFIG": str(tmp_path / "none.toml")})):
        with pytest.raises(SettingsInvalid, match="there is no such file"):
            resolve({}, environment, path)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SLIPWAY_REGISTY", "SLIPWAY_REGISTRY"),
        ("SLIPWAY_RUNER", "SLIPWAY_RUNNER"),
        ("SLIPWAY_TOKEN", "SLIPWAY_HF_TOKEN"),
        ("SLIPWAY_REGISTRYLISTEN", "SLIPWAY_REGISTRY"),
    ],
)
def test_an_unknown_variable(name: str, nearest: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"the variable {name} is not known; did you mean {nearest}?"):
        resolve({}, {name: "x"})


def test_nothing_is_suggested_that_is_not_close(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"the variable SLIPWAY_X is not known$"):
        resolve({}, {"SLIPWAY_X": "x"})
    with pytest.raises(SettingsInvalid, match=r"the key colour is not known$"):
        resolve({}, config(tmp_path, 'colour = "red"'))


def test_variables_of_the_services_are_theirs() -> None:
    resolve({}, {"SLIPWAY_REGISTRY_LISTEN": "x", "SLIPWAY_RUNNER_STATE_DIR": "y", "HOME": "/nowhere"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('registy = "a:1"', "the key registy is not known; did you mean registry?"),
        ("registry = 1", "registry is a string"),
        ('registry = "', "config.toml: "),
        ('registry = "http://a:1"', "registry of the configuration file: 'http://a:1' is a URL"),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsInvalid, match=complaint):
        resolve({}, config(tmp_path, text))


def test_a_wrong_address_names_its_source() -> None:
    with pytest.raises(SettingsInvalid, match="--runner: 'nowhere' has no host or no port"):
        resolve({"runner": "nowhere"}, {})
    with pytest.raises(SettingsInvalid, match="SLIPWAY_REGISTRY: "):
        resolve({}, {"SLIPWAY_REGISTRY": "x:y"})


@pytest.mark.parametrize("token", ["hf_a\nb", "hf_a\rb", "hf_ä", "hf_a b", "hf_\x00"])
def test_what_is_no_token_is_refused_and_not_repeated(token: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="SLIPWAY_HF_TOKEN: the Hub token has characters") as refused:
        resolve({}, {"HOME": str(tmp_path), "SLIPWAY_HF_TOKEN": token})
    assert token not in str(refused.value)
    with pytest.raises(ValueError, match="the Hub token has characters") as unsent:
        token_metadata(token)
    assert token not in str(unsent.value)


def test_white_space_around_a_token_is_not_part_of_it(tmp_path: Path) -> None:
    resolve({}, {"HOME": str(tmp_path), "SLIPWAY_HF_TOKEN": "hf_a\r\n"})
    assert token_metadata(" hf_a\r\n") == ((TOKEN_KEY, "hf_a"),)
    assert token_metadata("\n") == ()


def test_the_documentation_has_the_table() -> None:
    text = Path("docs/cli.md").read_text()
    for row in TABLE:
        assert (
            f"| `{row.variable}` | `{row.key}` | {f'`{row.default}`' if row.default else ''} | {row.meaning} |" in text
        )

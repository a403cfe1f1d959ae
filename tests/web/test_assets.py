import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.web.assets import FOLDER, Assets


def test_a_page_names_its_files_by_their_content(client: TestClient) -> None:
    page = client.get("/login")
    addresses = re.findall(r'"(/static/[^"]+)"', page.text)

    answers = {address: client.get(address) for address in addresses}

    assert {path.suffix for path in FOLDER.iterdir()} == {Path(each).suffix for each in answers}
    for address, answer in answers.items():
        assert re.fullmatch(r"/static/[a-z]+\.[0-9a-f]{12}\.(css|js|svg)", address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
    kinds = {answer.headers["content-type"].partition(";")[0] for answer in answers.values()}
    assert kinds == {"text/css", "text/javascript", "image/svg+xml"}


def test_a_file_is_there_under_its_hashed_name_alone(client: TestClient) -> None:
    for name in ("patchbay.css", "patchbay.000000000000.css", "..%2Fassets.py"):
        assert client.get(f"/static/{name}").status_code == 404


def test_other_content_has_another_name(tmp_path: Path) -> None:
    file = tmp_path / "a.css"
    file.write_text("a {}")
    before = Assets(tmp_path).url("a.css")
    file.write_text("b {}")

    after = Assets(tmp_path)

    assert after.url("a.css") != before
    found = after.find(after.url("a.css").removeprefix("/static/"))
    assert found is not None
    assert found.content == b"b {}"


def test_a_file_without_a_media_type_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a.exe").write_text("")

    with pytest.raises(KeyError):
        Assets(tmp_path)


def test_nothing_static_asks_another_host() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path
        assert "@import" not in text, path

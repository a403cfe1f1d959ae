from service.cli.output import verified_lines
from service.names import digest_of


def test_people_are_told_which_digest_each_file_was_held_against() -> None:
    content = b"weights"
    files = {"model.safetensors": digest_of(content)}

    (line,) = verified_lines(files)

    hexdigits = digest_of(content).removeprefix("sha256:")
    assert line == f"verified: sha256 {hexdigits}  model.safetensors"

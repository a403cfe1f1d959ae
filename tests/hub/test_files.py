from service.hub.files import Entry, tree
from service.names import digest_of

ENTRY = Entry("a/b/c.bin", 12, digest_of(b"hello world\n"))


def test_a_files_git_name_is_that_of_its_pointer() -> None:
    # The pointer's name by `git hash-object`.
    assert ENTRY.pointer.decode().splitlines() == [
        "version https://git-lfs.github.com/spec/v1",
        "oid sha256:a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447",
        "size 12",
    ]
    assert ENTRY.git_oid == "0db788d9cca75b69bc4c2430024a654fafdb504e"


def test_every_folder_on_the_way_is_listed_once() -> None:
    other = Entry("a/b/d.bin", 12, ENTRY.sha256)

    items = tree([ENTRY, other], "", recursive=True)

    assert [item["path"] for item in items] == ["a", "a/b", "a/b/c.bin", "a/b/d.bin"]
    assert [item["path"] for item in tree([ENTRY, other], "a", recursive=False)] == ["a/b"]

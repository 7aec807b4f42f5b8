"""Labels: where they come from, that they stay with their images, and what is said of bad ones."""

import itertools
import json
import tarfile
import unicodedata
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from form_makers import SIZE, encoded, idx, write, write_pictures

from ddpm.data import DataOrder, MemoryImages, open_data, streamed
from ddpm.data.class_folders import class_folders
from ddpm.data.images import FirstImages
from ddpm.data.labels import check_given, check_labels, find_class, in_order
from ddpm.data.loader import labelled_batches
from ddpm.data.splits import divide
from ddpm.errors import DdpmError
from typecheck import unchecked


def named(source):
    """Grey value and class name of every image of a set."""
    values = source[torch.arange(len(source))][:, 0, 0, 0].tolist()
    labels = source.labels.tolist()
    return {value: source.class_names[label] for value, label in zip(values, labels, strict=True)}


def class_set(folder, classes, each=2, first=1):
    """A folder with a folder for each class; each image's value and its class."""
    known = {}
    for i, name in enumerate(classes):
        names = [f"{j}.png" for j in range(each)]
        values = write_pictures(folder / name, names, first + 10 * i)
        known |= dict.fromkeys(values.values(), name.rpartition("/")[2])
    return known


# -- the order of names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["cat", "Zebra", "ant"], ["Zebra", "ant", "cat"]),
        (["c10", "c9", "c100", "b"], ["b", "c9", "c10", "c100"]),
        (["01", "1", "2", "002"], ["01", "1", "002", "2"]),
        (["2", "a", "10"], ["2", "10", "a"]),
        (["1", "1", "0"], ["0", "1"]),
    ],
)
def test_numbers_in_names_count_as_numbers(names, expected):
    for permuted in itertools.permutations(names):
        assert list(in_order(permuted)) == expected


# -- folders -----------------------------------------------------------------------------------


def test_each_folder_is_a_class_and_ten_comes_after_two(tmp_path):
    known = class_set(tmp_path / "set", ["10", "2", "1"])
    source = open_data(tmp_path / "set", **SIZE)
    assert source.class_names == ("1", "2", "10")
    assert named(source) == known


def test_both_splits_have_the_same_list_though_each_lacks_a_class(tmp_path):
    train = class_set(tmp_path / "set", ["train/cat", "train/dog", "train/eel"])
    test = class_set(tmp_path / "set", ["test/ant", "test/dog"], first=100)
    found = [open_data(tmp_path / "set", split, **SIZE) for split in ("train", "test")]
    assert {source.class_names for source in found} == {("ant", "cat", "dog", "eel")}
    assert [named(source) for source in found] == [train, test]


@pytest.mark.parametrize("places", ["{split}/{name}", "{name}/{split}", "all/{split}/{name}"])
@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("training", "val"), ("tr", "dev")])
def test_names_of_splits_are_none_of_classes_wherever_they_stand(places, one, other, tmp_path):
    known = class_set(tmp_path / "set", [places.format(split=one, name=n) for n in ("cat", "dog")])
    class_set(tmp_path / "set", [places.format(split=other, name="dog")], first=100)
    source = open_data(tmp_path / "set", **SIZE)
    if one == "tr":  # no word for training, so it is a folder that all images share
        assert source.class_names[0] in ("cat", "tr")
        return
    assert source.class_names == ("cat", "dog")
    assert list(named(source)) == list(known)
    assert set(named(source).values()) == {"cat", "dog"}


def folders(**sets):
    """The class of each image, by the names of their paths."""
    paths = {name: [tuple(name.split("/"))] for names in sets.values() for name in names}
    return class_folders(paths, divide(paths))


def test_what_the_folders_of_a_set_may_look_like():
    assert folders(a=["car/1.png", "train/1.png", "bus/1.png"]) == {
        "car/1.png": "car",
        "train/1.png": "train",  # a set of vehicles
        "bus/1.png": "bus",
    }
    assert folders(a=["train/train/1.png", "train/car/1.png", "test/train/1.png"]) == {
        "train/train/1.png": "train",
        "train/car/1.png": "car",
        "test/train/1.png": "train",
    }
    nested = ["pets/cat/a/1.png", "pets/dog/b/1.png", "pets/dog/b/2.png"]
    assert set(folders(a=nested).values()) == {"cat", "dog"}
    assert folders(a=["cat/1.png", "cat/2.png"]) == dict.fromkeys(["cat/1.png", "cat/2.png"], "cat")
    # Held-out images without classes do not take those of the others away.
    flat = folders(a=["train/cat/1.png", "train/dog/1.png"], b=["test/1.png"])
    assert flat == {"train/cat/1.png": "cat", "train/dog/1.png": "dog"}
    inside = folders(a=["set/train/cat/1.png", "set/train/dog/1.png"], b=["set/test/1.png"])
    assert list(inside.values()) == ["cat", "dog"]


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png"],
        ["cat/1.png", "2.png"],
        ["cat/1.png", "dog/deep/2.png"],
        ["train/1.png", "train/2.png", "test/1.png"],
        ["train/cat/1.png", "train/2.png", "test/cat/1.png"],
    ],
)
def test_folders_of_other_depths_are_no_classes(names, tmp_path):
    assert folders(a=names) == {}
    write_pictures(tmp_path / "set", [])
    for i, name in enumerate(names):
        write(tmp_path / "set" / name, encoded(i))
    source = open_data(tmp_path / "set", **SIZE)
    assert source.labels is None
    with pytest.raises(DdpmError, match=r"set has no labels, so network\.classes must be 0"):
        check_labels(source, 2)


def test_a_name_is_the_same_however_its_accents_are_stored(tmp_path):
    for form, split in (("NFC", "train"), ("NFD", "test")):
        folder = tmp_path / "set" / split / unicodedata.normalize(form, "Café")
        write_pictures(folder, ["1.png"])
    write_pictures(tmp_path / "set" / "train" / "Bar", ["1.png"])
    for split in ("train", "test"):
        source = open_data(tmp_path / "set", split, **SIZE)
        assert source.class_names == ("Bar", unicodedata.normalize("NFC", "Café"))
    assert find_class(unicodedata.normalize("NFD", "Café"), source.class_names) == 1


def test_names_that_are_no_utf8_or_have_spaces_are_names(tmp_path):
    names = ["with space", "-dash", "a\udcffb"]
    try:
        class_set(tmp_path / "set", names)
    except (OSError, UnicodeError):
        names = names[:2]
        class_set(tmp_path / "set", names)
    assert set(open_data(tmp_path / "set", **SIZE).class_names) == set(names)


def test_images_held_out_by_content_keep_their_labels(tmp_path):
    known = class_set(tmp_path / "set", ["cat", "dog", "eel"], each=9)
    parts = [open_data(tmp_path / "set", s, hold_out=0.4, **SIZE) for s in ("train", "test")]
    assert all(len(part) < 27 for part in parts)
    assert named(parts[0]) | named(parts[1]) == known


def test_an_image_that_is_left_out_takes_its_label_along(tmp_path):
    known = class_set(tmp_path / "set", ["cat", "dog"], each=70)
    write(tmp_path / "set" / "cat" / "0.png", b"no picture")
    write(tmp_path / "set" / "cat" / "notes.txt", b"no picture")
    source = open_data(tmp_path / "set", **SIZE)
    assert len(source) == 139
    assert named(source).items() <= known.items()


# -- archives, Parquet, arrays -----------------------------------------------------------------


def packed(folder, target, kind):
    """The files of a folder as an archive, below a folder that all share."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in files:
                archive.write(path, f"data/{path.relative_to(folder)}")
    else:
        with tarfile.open(target, f"w:{kind}") as archive:
            for path in files:
                archive.add(path, f"./data/{path.relative_to(folder)}")
    return target


@pytest.mark.parametrize("kind", ["zip", "gz", ""])
def test_folders_inside_archives_are_classes(kind, tmp_path):
    train = class_set(tmp_path / "set", ["train/10", "train/9"])
    test = class_set(tmp_path / "set", ["test/9"], first=100)
    target = tmp_path / {"zip": "a.zip", "gz": "a.tar.gz", "": "a.tar"}[kind]
    packed(tmp_path / "set", target, kind)
    found = [open_data(target, split, **SIZE) for split in ("train", "test")]
    assert {source.class_names for source in found} == {("9", "10")}
    assert [named(source) for source in found] == [train, test]


def test_an_archive_for_each_class_is_called_without_its_ending(tmp_path):
    known = {}
    for i, name in enumerate(["cat", "dog"]):
        values = write_pictures(tmp_path / "pictures" / name, ["1.png", "2.png"], 1 + 10 * i)
        known |= dict.fromkeys(values.values(), name)
        (tmp_path / "set").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "set" / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / "pictures" / name).iterdir()):
                archive.write(path, path.name)
    assert named(open_data(tmp_path / "set", **SIZE)) == known


def save_parquet(path, labels, names=None, column="label", values=None):
    """A Parquet file, with the names of the classes as the Hugging Face libraries note them."""
    values = values or range(1, len(labels) + 1)
    cells = [None if value is None else {"bytes": encoded(value)} for value in values]
    table = pa.table({"image": cells, column: pa.array(labels)})
    if names is not None:
        feature = {"_type": "ClassLabel", "names": names}
        noted = json.dumps({"info": {"features": {column: feature}}})
        table = table.replace_schema_metadata({"huggingface": noted})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


@pytest.mark.parametrize("column", ["label", "fine_label"])
def test_parquet_says_what_its_classes_are_called(column, tmp_path):
    for split, labels in (("train", [2, 0, 1, 2]), ("test", [1, 1])):
        save_parquet(tmp_path / f"{split}-0.parquet", labels, ["ant", "bee", "cat"], column)
    train, test = (open_data(tmp_path, split, **SIZE) for split in ("train", "test"))
    assert named(train) == {1: "cat", 2: "ant", 3: "bee", 4: "cat"}
    assert test.class_names == train.class_names
    assert check_labels(train, 3).tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize("noted", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": {}}}'])
def test_other_notes_in_parquet_are_passed_over(noted, tmp_path):
    table = pa.table({"image": [{"bytes": encoded(1)}, {"bytes": encoded(2)}], "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": noted}), tmp_path / "a.parquet")
    source = open_data(tmp_path, **SIZE)
    assert (source.labels.tolist(), source.class_names) == ([0, 1], ())


def test_a_set_too_big_for_memory_has_its_labels_too(tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.data.parquet.fits_in_memory", lambda *_: False)
    monkeypatch.setattr("ddpm.data.streamed.fits_in_memory", lambda *_: False)
    values = [1, 2, None, 4, None, 6]
    save_parquet(tmp_path / "p" / "a.parquet", [0, 1, 2, 1, 0, 2], ["a", "b", "c"], values=values)
    source = open_data(tmp_path / "p", **SIZE)
    assert isinstance(source, streamed.StreamedImages)
    assert named(source) == {1: "a", 2: "b", 4: "b", 6: "c"}
    save_parquet(tmp_path / "q" / "a.parquet", [0, 1, 2], ["a", "b", "c"])
    assert named(open_data(tmp_path / "q", **SIZE)) == {1: "a", 2: "b", 3: "c"}
    known = class_set(tmp_path / "set", ["2", "10"])
    assert named(open_data(tmp_path / "set", **SIZE)) == known


def test_mnist_files_and_arrays_have_labels_without_names(tmp_path):
    images = np.arange(4, dtype=np.uint8)[:, None, None] + np.zeros((4, 8, 8), np.uint8)
    labels = [1, 0, 2, 1]
    write(tmp_path / "idx" / "train-images-idx3-ubyte", idx(images))
    write(tmp_path / "idx" / "train-labels-idx1-ubyte", idx(np.array(labels, np.uint8)))
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(labels, np.int32))
    for path in (tmp_path / "idx", tmp_path / "a.npz"):
        source = open_data(path, image_size=8, channels=1)
        assert check_labels(source, 3).tolist() == labels
        assert source.class_names == ()


def test_the_known_sets_know_their_classes():
    for split in ("train", "test"):
        digits = open_data("digits", split, image_size=8, channels=1)
        assert digits.class_names == tuple("0123456789")
        assert len(check_labels(digits, 10)) == len(digits)
        moved = digits.to(torch.device("cpu"))
        assert (moved.labels is digits.labels, moved.class_names) == (True, digits.class_names)
        first = FirstImages(digits, 7)
        assert torch.equal(first.labels, digits.labels[:7])
        assert first.class_names == digits.class_names


# -- a broken image among many -----------------------------------------------------------------


class Encoded:
    """Images of which some are broken; image i has the grey value i and the label i % 3."""

    name = "encoded"
    class_names = ("a", "b", "c")

    def __init__(self, n, broken=()):
        self.n, self.broken, self.labels = n, broken, torch.arange(n) % 3

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return b"broken" if index in self.broken else encoded(index)

    def describe(self, index):
        return f"image {index}"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_stands_in_for_a_broken_one_has_its_own_label(workers):
    source = streamed.StreamedImages(Encoded(30, broken={4, 5, 29}), 8, 3)
    order = DataOrder(30, 10, seed=1)
    shown = 0
    for batch in labelled_batches(source, source.labels, order, 0, 6, slice(10), workers):
        values = batch.images[:, 0, 0, 0].long()
        assert torch.equal(batch.labels, values % 3)
        assert not set(values.tolist()) & {4, 5, 29}
        shown += len(values)
    assert shown == 60


class Single:
    """A source of single reads with labels of its own."""

    name, format = "single", MemoryImages(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).format
    labels = torch.arange(20) % 7

    def __len__(self):
        return 20

    def read(self, index):
        return torch.full((1, 8, 8), index, dtype=torch.uint8)

    def __getitem__(self, indices):
        return torch.stack([self.read(int(i)) for i in indices])


@pytest.mark.parametrize("memory", [True, False])
def test_the_label_follows_its_image_through_the_order(memory):
    source = Single()
    if memory:
        source = MemoryImages(source[torch.arange(20)], labels=source.labels)
    order = DataOrder(20, 6, seed=3)
    batches = list(labelled_batches(source, source.labels, order, 2, 9, slice(2, 6), workers=1))
    assert len(batches) == 7
    for images, labels in batches:
        assert torch.equal(images[:, 0, 0, 0] % 7, labels)
        assert labels.dtype == torch.long
    bare = list(labelled_batches(source, None, order, 2, 9, slice(2, 6), workers=1))
    assert all(batch.labels is None for batch in bare)
    assert all(torch.equal(a.images, b.images) for a, b in zip(bare, batches, strict=True))


# -- bad labels --------------------------------------------------------------------------------


def labelled(labels, names=(), n=4):
    return MemoryImages(torch.zeros(n, 1, 8, 8, dtype=torch.uint8), 17, "mine", labels, names)


@pytest.mark.parametrize(
    ("labels", "names", "classes", "said"),
    [
        (None, (), 3, "mine has no labels"),
        ([0.0, 1.0, 2.0, 1.0], (), 3, "must be whole numbers.* are float32"),
        ([True, False, True, True], (), 2, "must be whole numbers.* are bool"),
        ([0, 1, 2], (), 3, r"one for each of its 4 images; they are int64 of shape \(3,\)"),
        ([[0], [1], [2], [1]], (), 3, r"of shape \(4, 1\)"),
        ([0, 1, -1, 2], (), 3, "has an image with the label -1"),
        ([0, 1, 2, 1], (), 10, r"has 3 classes \(labels 0\.\.2\).*set it to 3"),
        ([0, 1, 2, 1], (), 2, r"has 3 classes \(labels 0\.\.2\), and network\.classes is 2"),
        ([1, 2, 3, 1], (), 3, r"has 4 classes \(labels 0\.\.3\)"),
        ([0, 1, 1, 1], ("a", "b"), 3, r"has 2 classes \(a, b\).*set it to 2"),
        ([0, 1, 2, 1], ("a", "b"), 2, r"labels up to 2, and only 2 classes \(a, b\)"),
    ],
)
def test_labels_that_fit_no_model_are_refused(labels, names, classes, said):
    found = None if labels is None else torch.tensor(labels)
    with pytest.raises(DdpmError, match=said) as error:
        check_labels(labelled(found, names), classes)
    assert "\n" not in str(error.value)


def test_other_types_of_whole_numbers_are_labels(caplog):
    for kind in (torch.uint8, torch.int16, torch.int64):
        found = check_labels(labelled(torch.tensor([0, 1, 2, 1], dtype=kind)), 3)
        assert (found.dtype, found.tolist()) == (torch.long, [0, 1, 2, 1])
    with unchecked():
        assert check_labels(labelled([0, 1, 2, 1]), 3).tolist() == [0, 1, 2, 1]
    assert not caplog.records


def test_a_class_without_images_is_named(caplog):
    found = check_labels(labelled(torch.tensor([0, 2, 2, 0])), 4, ("a", "b", "c", "d"))
    assert found.tolist() == [0, 2, 2, 0]
    assert "mine has no image of b, d, which cannot be learned" in caplog.text


def test_long_lists_of_classes_stay_readable():
    source = labelled(torch.tensor([0, 1, 2, 999]), tuple(f"n{i}" for i in range(1000)))
    with pytest.raises(DdpmError, match=r"n19, \.\.\. \(1,000 in all\)") as error:
        check_labels(source, 10)
    assert len(str(error.value)) < 400


# -- naming a class ----------------------------------------------------------------------------

PETS = ("cat", "dog", "10", "2")


@pytest.mark.parametrize(
    ("label", "expected"),
    [("cat", 0), ("2", 3), ("10", 2), ("1", 1), (2, 2), (np.int64(3), 3), ("0", 0), ("03", 3)],
)
def test_a_class_is_named_by_its_name_first_and_then_by_its_number(label, expected):
    with unchecked():
        assert find_class(label, PETS) == expected


@pytest.mark.parametrize(
    "label", ["Cat", "", " cat", "4", "-1", "1.0", "+1", "１", -1, 4, 10, 1.0, True, None, [0]]
)
def test_a_class_that_does_not_exist_is_refused_with_those_that_do(label):
    known = "the classes are 0 cat, 1 dog, 2 10, 3 2"
    with unchecked(), pytest.raises(DdpmError, match=known):
        find_class(label, PETS)


@pytest.mark.parametrize("guidance", [-0.1, float("nan"), float("inf"), "2", None, True, 1j])
def test_a_guidance_without_meaning_is_refused(guidance):
    said = "guidance must be a number of at least 0"
    with unchecked(), pytest.raises(DdpmError, match=said):
        check_given(PETS, 1, guidance)


def test_what_is_given_must_have_an_effect():
    with unchecked():
        assert check_given(PETS, "dog", np.float32(2)) == (1, 2.0)
    assert check_given(PETS, None, 1) == (None, 1.0)
    assert check_given((), None, 1.0) == (None, 1.0)
    with pytest.raises(DdpmError, match="guidance 2 has no effect without a class"):
        check_given(PETS, None, 2)
    with pytest.raises(DdpmError, match=r"trained without classes.*'cat'"):
        check_given((), "cat", 1.0)

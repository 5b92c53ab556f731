import importlib.util
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import ram_envs
from ram_envs.datasets import DataError

Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh(fresh_datasets):
    """No folder read before."""


def save(path, pixels=50, size=(4, 6), **options):
    """An image of one value (grey), or of an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size, pixels, np.uint8) if np.isscalar(pixels) else pixels
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """20 images of cats, all of them different, and 10 of dogs."""
    for index in range(20):
        save(tmp_path / "pets/cat" / f"{index}.png", 100 + index)
    for index in range(10):
        save(tmp_path / "pets/dog" / f"deeper/{index}.PNG", 200 + index)
    return tmp_path / "pets"


def values(name, split):
    """The value of each image of a split."""
    return ram_envs.load_images(name, split).images[:, 0, 0].tolist()


def test_classes_are_split_by_their_shares(folder):
    name = ram_envs.from_folder(folder, validation=0.2, test=0.1)
    splits = [ram_envs.load_images(name, split) for split in ("train", "validation", "test")]
    assert [one.images.shape for one in splits] == [(21, 4, 6), (6, 4, 6), (3, 4, 6)]
    assert [np.bincount(one.labels).tolist() for one in splits] == [[14, 7], [4, 2], [2, 1]]
    assert splits[0].class_names == ("cat", "dog")
    assert splits[0].name == "pets"
    seen = [value for split in ("train", "validation", "test") for value in values(name, split)]
    assert sorted(seen) == [*range(100, 120), *range(200, 210)]  # Each image once.
    for one in splits:
        assert ((one.images[:, 0, 0] >= 200) == one.labels).all()
    assert len(set(splits[0].labels[:7])) == 2  # Not sorted by class.


def test_the_split_depends_on_the_seed_and_hardly_on_other_files(folder):
    first, other = ram_envs.from_folder(folder), ram_envs.from_folder(folder, seed=1)
    before = {split: set(values(first, split)) for split in ("train", "test")}
    assert before["test"] != set(values(other, "test"))
    save(folder / "cat/new.png", 30)
    assert len(set(values(ram_envs.from_folder(folder), "train")) ^ before["train"]) <= 3
    folder.rename(folder.parent / "moved")
    (folder.parent / "moved/cat/new.png").unlink()
    assert set(values(ram_envs.from_folder(folder.parent / "moved"), "test")) == before["test"]


def test_folders_that_are_split_already(folder, tmp_path):
    (tmp_path / "ready").mkdir()
    folder.rename(tmp_path / "ready/train")
    save(tmp_path / "ready/val/dog/1.png", 70)
    name = ram_envs.from_folder(tmp_path / "ready", test=0.1)
    assert values(name, "validation") == [70]
    assert (len(values(name, "train")), len(values(name, "test"))) == (27, 3)
    save(tmp_path / "ready/test/cat/1.png", 80)
    assert len(values(ram_envs.from_folder(tmp_path / "ready"), "train")) == 30
    save(tmp_path / "ready/test/cow/1.png", 80)
    with pytest.raises(DataError, match=r"test/cow is a class that .*train lacks"):
        ram_envs.from_folder(tmp_path / "ready")


def test_classes_may_be_called_like_splits(tmp_path):
    for index in range(3):
        for name in ("train", "test"):
            save(tmp_path / name / f"{index}.png")
    assert ram_envs.load_images(ram_envs.from_folder(tmp_path)).class_names == ("test", "train")


def test_environments_know_the_folder_by_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    name = ram_envs.from_folder("pets")
    env = gym.make("GlimpseClassification-v0", dataset=name, glimpse_size=4).unwrapped
    env.reset(seed=0)
    assert (env.dataset, env.choice_names, env.scene_shape) == ("pets", ("cat", "dog"), (4, 6))
    assert env.evaluation("test").num_episodes == 5  # 0.15 of 20 and of 10.
    assert len(pickle.dumps(env)) < 10_000 + 30 * 24
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        monkeypatch.chdir("/")
        assert pool.apply(values, (name, "test")) == values(name, "test")
    code = f"import ram_envs; print(len(ram_envs.load_images({name!r}, 'train').labels))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd="/", env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert values(f"folder:{folder}", "test") == values(name, "test")  # As a user writes it.
    for wrong in ("?sizes=3", "?size=0x3", "?channels=2", "?seed=x"):
        with pytest.raises(ValueError, match=r"dataset must be folder:PATH\?size=HxW"):
            ram_envs.load_images(f"folder:{folder}{wrong}")


def test_images_of_any_size_are_fitted_in_proportion(tmp_path):
    for name in ("a", "b"):
        for index, size in enumerate(((10, 20), (10, 20), (40, 20))):
            save(tmp_path / name / f"{index}.png", 255, size)
    with pytest.warns(UserWarning, match=r"10x20 to 40x20 pixels \(height x width\): all are fitted into 10x20.*size=\(10, 20\)"):
        name = ram_envs.from_folder(tmp_path)
    images = np.concatenate([ram_envs.load_images(name, split).images for split in ("train", "validation", "test")])
    tall = images[(images[:, 0, 0] == 0)]
    assert len(tall) == 2
    assert (tall[0] > 0).sum(axis=0).tolist() == [0] * 7 + [10] * 5 + [0] * 8 or (tall[0] > 0).sum() == 50  # 10x5.
    square = ram_envs.load_images(ram_envs.from_folder(tmp_path, size=8))
    assert square.images.shape[1:] == (8, 8)
    assert sorted({int((one > 0).sum()) for one in square.images}) in ([32], [32, 64])  # 4x8 and 8x4.


def test_large_images_are_made_smaller(tmp_path):
    for index in range(6):
        save(tmp_path / "ab"[index % 2] / f"{index}.jpg", 200, (300, 600))
    with pytest.warns(UserWarning, match="fitted into 64x128"):
        name = ram_envs.from_folder(tmp_path)
    assert ram_envs.load_images(name).images.shape == (2, 64, 128)


RGB = np.zeros((4, 6, 3), np.uint8)
RGB[..., 0], RGB[:2, :, 1] = 200, 100  # Red, and above some green.
DEEP = np.full((4, 6), 65535 // 4, np.uint16)
ALPHA = np.dstack([RGB, np.where(np.arange(6) < 3, 255, 0) * np.ones((4, 1))]).astype(np.uint8)


def turned(**exif):
    tags = Image.Exif()
    tags[0x0112] = 6  # To be turned by 90 degrees clockwise.
    return {"exif": tags}


@pytest.mark.parametrize(
    ("ending", "image", "options", "expected"),
    [
        ("png", RGB, {}, RGB),
        ("png", Image.fromarray(RGB).quantize(4), {}, RGB),
        ("tif", Image.fromarray(RGB).convert("CMYK"), {}, RGB),
        ("png", DEEP, {}, np.full((4, 6), 64)),
        ("png", np.arange(24).reshape(4, 6) % 2 == 1, {}, 255 * (np.arange(24).reshape(4, 6) % 2)),
        ("png", np.moveaxis(RGB, 0, 1)[::-1].copy(), turned(), RGB),
        ("webp", RGB, {"lossless": True}, RGB),
    ],
)
def test_forms_of_pixels(ending, image, options, expected, tmp_path):
    for index in range(6):
        save(tmp_path / "ab"[index % 2] / f"{index}.{ending}", image, **options)
    images = ram_envs.load_images(ram_envs.from_folder(tmp_path, levels=(0, 255))).images
    expected = np.moveaxis(expected, 2, 0) if expected.ndim == 3 else expected
    np.testing.assert_array_equal(images, np.broadcast_to(expected, images.shape))
    grey = ram_envs.load_images(ram_envs.from_folder(tmp_path, channels=1, levels=(0, 255))).images
    assert grey.shape == (2, 4, 6)


def test_transparent_places_are_black_and_told(tmp_path):
    for index in range(6):
        save(tmp_path / "ab"[index % 2] / f"{index}.png", ALPHA)
    with pytest.warns(UserWarning, match="6 images that are transparent in places, which become black"):
        name = ram_envs.from_folder(tmp_path)
    images = ram_envs.load_images(name).images
    np.testing.assert_array_equal(images[0], np.moveaxis(RGB * (ALPHA[..., 3:] > 0), 2, 0))


def test_a_bright_ground_is_inverted_and_told_and_what_is_added_is_black(tmp_path):
    """Dark dots on white: what is transparent, and what is added to fit a size, counts as ground."""
    drawing = np.full((4, 6, 4), 255, np.uint8)
    drawing[1:3, 2:4, :3] = 55  # A grey square.
    drawing[:, 0, 3] = 0  # Transparent, and white below that.
    for index in range(6):
        save(tmp_path / "ab"[index % 2] / f"{index}.png", np.ascontiguousarray(drawing[..., :3]))
    with pytest.warns(UserWarning, match="images of a bright ground, which are inverted: .*; invert=True says so, invert=False"):
        name = ram_envs.from_folder(tmp_path, channels=1)
    inverted = np.zeros((4, 6), np.uint8)
    inverted[1:3, 2:4] = 200
    np.testing.assert_array_equal(ram_envs.load_images(name).images[0], inverted)
    save(tmp_path / "a/0.png", drawing)  # Read again, by the name alone.
    ram_envs.datasets._loaders.clear()
    with pytest.warns(UserWarning, match="1 images that are transparent in places, which become black"):
        tall = ram_envs.load_images(ram_envs.from_folder(tmp_path, channels=1, size=(8, 6), invert=True)).images
    np.testing.assert_array_equal(tall, np.broadcast_to(np.pad(inverted, [(2, 2), (0, 0)]), tall.shape))
    np.testing.assert_array_equal(ram_envs.load_images(name).images, np.broadcast_to(inverted, (2, 4, 6)))
    save(tmp_path / "a/0.png", np.ascontiguousarray(drawing[..., :3]))
    plain = ram_envs.load_images(ram_envs.from_folder(tmp_path, channels=1, invert=False)).images
    np.testing.assert_array_equal(plain, np.broadcast_to(255 - inverted, plain.shape))


def save_squares(folder, ground, square, spot=None):
    """Six images of 4x6 pixels: a square of 2x2 on a ground, and perhaps one other pixel."""
    pixels = np.full((4, 6, 3), ground, np.uint8)
    pixels[1:3, 2:4] = square
    pixels[3, 5] = pixels[3, 5] if spot is None else spot
    for index in range(6):
        save(folder / "ab"[index % 2] / f"{index}.png", pixels)


SQUARE = np.pad(np.full((2, 2), 255), [(1, 1), (2, 2)])


def test_faint_images_are_stretched_and_told_and_what_is_added_stays_black(tmp_path):
    """A square of 110 on 90: its step is 20, that to the black outside is 90."""
    save_squares(tmp_path, ground=90, square=110)
    message = r"faint images, all with values from 90 to 110, .*; levels=\(90, 110\) says so, levels=\(0, 255\) leaves"
    with pytest.warns(UserWarning, match=message):
        name = ram_envs.from_folder(tmp_path, size=(8, 6))
    tall = np.pad(SQUARE, [(2, 2), (0, 0)])
    ram_envs.datasets._loaders.clear()  # Read again, by the name alone.
    for one in (name, ram_envs.from_folder(tmp_path, size=(8, 6), levels=(90, 110))):
        np.testing.assert_array_equal(ram_envs.load_images(one).images, np.broadcast_to(tall, (2, 3, 8, 6)))
    plain = ram_envs.load_images(ram_envs.from_folder(tmp_path, levels=(0, 255))).images
    assert np.unique(plain).tolist() == [90, 110]
    wider = ram_envs.load_images(ram_envs.from_folder(tmp_path, levels=(100, 130))).images
    assert np.unique(wider).tolist() == [0, 85]  # Below 100 all is black; 255 * 10 / 30.


def test_faint_images_of_a_bright_ground_are_stretched_and_inverted(tmp_path):
    save_squares(tmp_path, ground=110, square=90)
    with pytest.warns(UserWarning, match="faint images"), pytest.warns(UserWarning, match="images of a bright ground"):
        name = ram_envs.from_folder(tmp_path)
    np.testing.assert_array_equal(ram_envs.load_images(name).images, np.broadcast_to(SQUARE, (2, 3, 4, 6)))


@pytest.mark.parametrize(("ground", "square", "spot"), [(90, 110, (90, 90, 150)), (5, 70, None), (90, 90, None), (250, 240, 235)])
def test_images_that_are_not_faint_stay_as_they_are(ground, square, spot, tmp_path):
    """Blue is 60 above the ground of 90, 90 / 1.5; a ground that is black, or white, makes no step; and nothing can be seen."""
    save_squares(tmp_path, ground, square, spot)
    images = ram_envs.load_images(ram_envs.from_folder(tmp_path, invert=False)).images
    assert images[0, :, 0, 0].tolist() == [ground] * 3
    assert images[0, :, 1, 2].tolist() == [square] * 3


def damaged(folder):
    path = folder / "cat/3.png"
    path.write_bytes(path.read_bytes()[:-30])
    return "cat/3.png can't be read"


def no_image(folder):
    (folder / "dog/x.jpg").write_text("hello")
    return r"dog/x.jpg can't be read \(cannot identify"


def huge(folder):
    save(folder / "dog/big.png", Image.new("1", (15_000, 15_000)))
    return "dog/big.png can't be read .*pixels"


def many(folder):
    save(folder / "dog/two.tif", Image.new("L", (3, 3)), save_all=True, append_images=[Image.new("L", (3, 3), 9)])
    return "dog/two.tif can't be read .*2 pictures"


def floats(folder):
    save(folder / "dog/f.tif", np.ones((3, 3), np.float32))
    return "dog/f.tif can't be read .*floating-point"


def broken_link(folder):
    (folder / "dog/link.png").symlink_to("nowhere.png")
    return "dog/link.png can't be read"


def empty(folder):
    (folder / "cow").mkdir()
    return r"cow must hold images \(.png, .*there is nothing: remove it"


def others_only(folder):
    (folder / "cow").mkdir()
    (folder / "cow/one.heic").write_text("x")
    return "there is 1 others, such as one.heic"


def too_few(folder):
    save(folder / "cow/1.png")
    save(folder / "cow/2.png")
    return "an image of each class for train and test and validation, of 'cow' there are 2"


def one_class(folder):
    for path in folder.glob("dog/deeper/*"):
        path.unlink()
    (folder / "dog/deeper").rmdir()
    (folder / "dog").rmdir()
    return "a sub-folder for each of at least two classes, there is cat"


@pytest.mark.parametrize("spoil", [damaged, no_image, huge, many, floats, broken_link, empty, others_only, too_few, one_class])
def test_what_is_wrong_is_named(spoil, folder):
    message = spoil(folder)
    with pytest.raises(DataError, match=message):
        ram_envs.from_folder(folder, size=4)


def test_no_folder():
    with pytest.raises(DataError, match=r"there is no folder .*/nowhere"):
        ram_envs.from_folder("nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be from 1 to 4096 pixels, got 0"),
        ({"size": (3, 4, 5)}, r"size must be a side or a pair .*got \(3, 4, 5\)"),
        ({"size": 2.5}, "size must be a side"),
        ({"channels": 4}, "channels must be 1 .*got 4"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"test": 0}, "validation and test must be shares above 0"),
        ({"invert": 1}, "invert must be True, False or None"),
        ({"levels": (90, 90)}, r"levels must be two whole numbers .*got \(90, 90\)"),
        ({"levels": (0, 256)}, r"levels must be two whole numbers .*got \(0, 256\)"),
        ({"levels": 90}, "levels must be two whole numbers .*got 90"),
        ({"levels": (0, 0.5)}, "levels must be two whole numbers"),
        ({"test": 0.6, "validation": 0.4}, "leave some images to train on, got 0.4 and 0.6"),
    ],
)
def test_options_out_of_range(options, message, folder):
    with pytest.raises(ValueError, match=message):
        ram_envs.from_folder(folder, **options)


def test_hidden_files_are_left_out_links_followed_and_others_told(folder):
    for name in (".DS_Store", "cat/.hidden.png", ".git/config", "__MACOSX/cat/1.png"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("x")
    (folder / "cat/again").symlink_to(folder / "cat", target_is_directory=True)  # A circle.
    (folder / "cat/linked.png").symlink_to(folder / "dog/deeper/1.PNG")
    name = ram_envs.from_folder(folder)
    assert sum(len(values(name, split)) for split in ("train", "validation", "test")) == 31
    (folder / "cat/notes.txt").write_text("x")
    save(folder / "lost.png")
    with pytest.warns(UserWarning, match=r"2 files in .*pets are left out, such as .*lost.png"):
        ram_envs.from_folder(folder)


def test_without_pillow_the_cure_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"takes Pillow: pip install 'ram-envs\[images\]'"):
        ram_envs.from_folder(folder)


def test_the_command_line_learns_a_folder_and_remembers_it(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from train_agent import main

    small = ["--n-envs", "4", "--device", "cpu", "--evaluations", "1", "-params", "policy_kwargs.core_size:8"]
    asked = ["--images", str(folder), "size:8,10", "-n", "28", *small, "--folder", str(tmp_path / "run")]
    result = main(asked)
    said = capsys.readouterr()
    assert "20 / 5 / 5 images to train, validate and test, of 2 classes (cat, dog), 8x10 grey" in said.err
    assert "patches of 8x8 pixels for scenes of 8x10" in said.out
    assert (result["env"], result["dataset"], result["class_names"]) == ("GlimpseClassification-v0", "pets", ["cat", "dog"])
    assert (result["test_episodes"], result["env_kwargs"]["num_scales"]) == (5, 1)
    assert main(asked) == result  # It is finished.
    monkeypatch.chdir(tmp_path)
    ram_envs.datasets._loaders.clear()
    capsys.readouterr()
    again = main(["-i", "run", "--eval-only", "--device", "cpu"])
    assert json.loads(capsys.readouterr().out) == again
    assert again["test_error"] == result["test_error"]
    (folder / "dog").rename(folder / "sheep")
    with pytest.raises(SystemExit, match="2"):
        main(["-i", "run", "--images", str(folder), "size:8,10", "--eval-only", "--device", "cpu"])
    assert "run has learned the classes cat, dog, and the images are of the classes cat, sheep" in capsys.readouterr().err
    for wrong, message in (
        (["--images", "nowhere"], "there is no folder"),
        (
            ["--images", str(folder), "sise:3"],
            "--images FOLDER may be followed by size, channels, seed, validation, test, invert, levels, got sise",
        ),
        (["--images", str(folder), "size:-1"], "size must be from 1 to 4096"),
    ):
        with pytest.raises(SystemExit):
            main([*wrong, "-f", str(tmp_path / "logs")])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


@pytest.fixture
def shapes():
    """docs/examples/shapes.py."""
    spec = importlib.util.spec_from_file_location("shapes", ROOT / "docs/examples/shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class HuggingFace:
    """What the page asks of a data set of Hugging Face: all rows, as arrays."""

    def __init__(self, **columns):
        self.columns = columns

    def with_format(self, kind):
        assert kind == "numpy"
        return HuggingFace(**{name: np.array(column) for name, column in self.columns.items()})

    def __getitem__(self, where):
        assert where == slice(None)
        return self.columns


def test_what_the_page_says_runs(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shapes.write(Path("shapes"), num_images=18)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own-images.md").read_text("utf-8"), re.DOTALL)
    pairs = [(Image.fromarray(np.full((8, 8, 3), 60 * label, np.uint8)), label) for label in (1, 2, 3, 0)]
    rows = HuggingFace(img=[np.asarray(image) for image, _ in pairs], label=[label for _, label in pairs])
    names = {}
    for block in blocks:
        names["cifar"] = dict.fromkeys(("train", "validation", "test"), rows if "hugging" in block else pairs)
        exec(block, names)
        if "register_dataset" in block:
            loaded = ram_envs.load_images("cifar10-hf" if "hugging" in block else "cifar10")
            assert loaded.labels.tolist() == [1, 2, 3, 0]
            assert loaded.images[:, :, 0, 0].tolist() == [[60] * 3, [120] * 3, [180] * 3, [0] * 3]
    assert names["obs"]["glimpse"].shape == (3, 3, 12, 12)
    assert capsys.readouterr().out == "('circle', 'cross', 'square')\n"


def test_the_lines_of_the_page_are_understood(shapes, tmp_path, monkeypatch):
    train_agent = pytest.importorskip("train_agent")
    monkeypatch.chdir(tmp_path)
    shapes.write(Path("shapes"), num_images=18)
    lines = re.findall(r"^ram-envs train (--images .*)$", (ROOT / "docs/own-images.md").read_text("utf-8"), re.MULTILINE)
    configs = [train_agent.parse_config(line.split()) for line in lines]
    assert [config.env for config in configs] == ["GlimpseClassification-v0"] * 3 + ["GlimpseTranslatedMNIST-v0"]
    assert "size=48x64&channels=1&seed=3&validation=0.15&test=0.2" in configs[1].env_kwargs["dataset"]
    assert configs[1].env_kwargs["num_glimpses"] == 5


def test_a_path_too_long_for_files_is_no_folder():
    with pytest.raises(DataError, match=r"there is no folder .*xxx: File name too long"):
        ram_envs.from_folder("x" * 5000)

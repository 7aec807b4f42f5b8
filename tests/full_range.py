"""Models of 256 grey levels, as photographs have them, that compress."""

from ddpm.data.images import ImageFormat
from ddpm.model import Ddpm
from ddpm.runtime.threads import one_thread
from helpers import tiny_images, tiny_model


def full_range_model(channels):
    """The tiny model for 8x8 images of 256 grey levels, measured, with a last stage."""
    tiny = tiny_model(channels=channels)
    image_format = ImageFormat(channels, 8, 8, 256)
    model = Ddpm(tiny.config, image_format, tiny.network, history=tiny.history)
    images = tiny_images(40, 256, channels)
    model.measure(images)
    model.learn_coding(images, steps=5)
    return model


def save_models(folder):
    """The files of a grey and of an RGB model, by their channels."""
    paths = {channels: folder / f"{channels}.safetensors" for channels in (1, 3)}
    with one_thread():
        for channels, path in paths.items():
            full_range_model(channels).save(path)
    return paths

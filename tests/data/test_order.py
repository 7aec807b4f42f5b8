"""The order of the data: whole epochs, a function of (seed, step) alone."""

import torch

from ddpm.data import DataOrder, training_batches
from helpers import tiny_images


def test_every_epoch_visits_every_image_once():
    order = DataOrder(length=7, batch_size=3, seed=0)
    stream = torch.cat([order[step] for step in range(14)])  # 42 indices: six epochs
    for epoch in stream.split(7):
        assert sorted(epoch.tolist()) == list(range(7))


def test_epochs_have_different_orders():
    order = DataOrder(length=50, batch_size=50, seed=0)
    assert order[0].tolist() != order[1].tolist()


def test_a_step_is_a_function_of_seed_and_step_not_of_what_was_read_before():
    walked = DataOrder(length=10, batch_size=4, seed=5)
    steps = [walked[step] for step in range(12)]
    for step in reversed(range(12)):
        assert torch.equal(DataOrder(10, 4, 5)[step], steps[step])
        assert torch.equal(walked[step], steps[step])
    torch.manual_seed(1)
    assert torch.equal(DataOrder(10, 4, 5)[3], steps[3])


def test_another_seed_gives_another_order():
    assert DataOrder(100, 100, 0)[0].tolist() != DataOrder(100, 100, 1)[0].tolist()


def test_a_batch_larger_than_the_set_repeats_whole_epochs():
    order = DataOrder(length=3, batch_size=8, seed=0)
    stream = torch.cat([order[step] for step in range(3)])
    assert [len(order[step]) for step in range(3)] == [8, 8, 8]
    for epoch in stream.split(3):
        assert sorted(epoch.tolist()) == [0, 1, 2]


def test_training_batches_are_the_images_of_the_order_from_start_to_stop():
    images = tiny_images(9)
    order = DataOrder(9, 4, seed=2)
    batches = list(training_batches(images, order, 3, 6, slice(0, 4)))
    assert len(batches) == 3
    for step, batch in zip((3, 4, 5), batches, strict=True):
        expected = torch.stack([images.images[i] for i in order[step].tolist()])
        assert torch.equal(batch, expected)


def test_processes_share_a_batch_without_overlap():
    images = tiny_images(9)
    order = DataOrder(9, 4, seed=2)
    (whole,) = training_batches(images, order, 1, 2, slice(0, 4))
    (left,) = training_batches(images, order, 1, 2, slice(0, 2))
    (right,) = training_batches(images, order, 1, 2, slice(2, 4))
    assert torch.equal(torch.cat([left, right]), whole)

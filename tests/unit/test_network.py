import pytest
import torch

from ich_node.model.network import SequenceHead, SequenceHeadSettings, SliceNetwork


@pytest.mark.parametrize("backbone", ["test_resnet", "mobilenetv3_small_050", "test_vit"])
def test_any_backbone_gives_six_logits_and_its_embedding(backbone: str) -> None:
    network = SliceNetwork(backbone).eval()
    images = torch.randn(2, 3, 160, 160)
    logits, embedding = network(images)
    assert logits.shape == (2, 6)
    assert embedding.shape == (2, network.embedding_size)
    assert torch.equal(network.forward_head(network.forward_features(images)), logits)


def make_head() -> SequenceHead:
    torch.manual_seed(0)
    return SequenceHead(SequenceHeadSettings(embedding_size=12, hidden_size=8)).eval()


def test_the_sequence_head_scores_slices_and_study() -> None:
    slice_logits, study_logits = make_head()(torch.randn(9, 12), torch.arange(9) * 5.0)
    assert slice_logits.shape == (9, 6)
    assert study_logits.shape == (6,)


def test_one_slice_alone_is_a_series() -> None:
    slice_logits, study_logits = make_head()(torch.randn(1, 12), torch.zeros(1))
    assert slice_logits.isfinite().all()
    assert study_logits.isfinite().all()


def test_the_sequence_head_sees_neighbours_and_their_distance() -> None:
    head = make_head()
    embeddings, positions = torch.randn(9, 12), torch.arange(9) * 5.0
    reference, _ = head(embeddings, positions)
    other = embeddings.clone()
    other[8] *= -1
    assert (head(other, positions)[0][7] - reference[7]).abs().max() > 1e-3
    assert (head(embeddings, positions * 2)[0] - reference).abs().max() > 1e-3


def test_where_a_series_lies_does_not_matter() -> None:
    head = make_head()
    embeddings, positions = torch.randn(9, 12), torch.arange(9) * 5.0
    assert torch.allclose(head(embeddings, positions)[1], head(embeddings, positions - 700)[1], atol=1e-5)

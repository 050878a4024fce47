"""What P5 runs: pieces of words, the tree of item ids, and a T5 that scores all of them at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from genrec.errors import BackboneError

Pieces = tuple[int, ...]
MOST_WORDS = 512
PAD, END = 0, 1


def closed(words: Sequence[Pieces], end: int = END) -> list[Pieces]:
    """The words' pieces, with an end token where one word would be the beginning of another.

    Elsewhere the last piece already says which word it is.
    """
    beginnings = {word[:cut] for word in words for cut in range(len(word))}
    return [(*word, end) if word in beginnings else word for word in words]


class IdTree:
    """All proper beginnings of the items' ids: what a decoder has to read to score every item.

    Attributes:
        ids: pieces of each item's id; none is the beginning of another.
        token: last piece of each beginning, shape [nodes]; node 0 is the empty one.
        depth: its length.
        sees: whether a node's beginning starts with another's, shape [nodes, nodes].
        at, piece: the nodes that an item's id passes and the piece it takes at each, shape [items,
            longest id]; -1 behind an id's end.
    """

    def __init__(self, ids: Sequence[Pieces], start: int) -> None:
        self.ids = ids
        nodes: dict[Pieces, int] = {(): 0}
        for pieces in ids:
            for cut in range(1, len(pieces)):
                nodes.setdefault(pieces[:cut], len(nodes))
        self.token = torch.tensor([node[-1] if node else start for node in nodes])
        self.depth = torch.tensor([len(node) for node in nodes])
        self.sees = torch.eye(len(nodes), dtype=torch.bool)
        for node, place in nodes.items():
            if node:
                self.sees[place] |= self.sees[nodes[node[:-1]]]
        passed = [torch.tensor([nodes[word[:cut]] for cut in range(len(word))]) for word in ids]
        self.at = pad_sequence(passed, batch_first=True, padding_value=-1)
        self.piece = pad_sequence(
            [torch.tensor(word) for word in ids], batch_first=True, padding_value=-1
        )

    def __len__(self) -> int:
        return len(self.token)

    def scores(self, log_probabilities: torch.Tensor) -> torch.Tensor:
        """Sums along each id, shape [rows, items], of [rows, nodes, vocabulary]."""
        total = log_probabilities.new_zeros(len(log_probabilities), len(self.ids))
        for at, piece in zip(self.at.T, self.piece.T, strict=True):
            total += torch.where(at >= 0, log_probabilities[:, at, piece], 0.0)
        return total


class Network(nn.Module):
    """A T5 whose encoder also hears which pieces make one word."""

    def __init__(self, t5: T5ForConditionalGeneration, *, spread: float) -> None:
        """Add the words; their embeddings start with a standard deviation of ``spread``."""
        super().__init__()
        self.t5 = t5
        self.words = nn.Embedding(MOST_WORDS, t5.config.d_model)
        nn.init.normal_(self.words.weight, std=spread)

    def loss(
        self, pieces: torch.Tensor, words: torch.Tensor, answers: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of a batch's answers, each piece given those before it."""
        labels = answers.masked_fill(answers < 0, -100)
        embedded, mask = self._embedded(pieces, words)
        logits = self.t5(inputs_embeds=embedded, attention_mask=mask, labels=labels).logits
        return cross_entropy(logits.flatten(0, 1), labels.flatten())

    @torch.inference_mode()
    def item_scores(self, pieces: torch.Tensor, words: torch.Tensor, tree: IdTree) -> torch.Tensor:
        """Log-probabilities of all ids, shape [rows, items].

        The tree's nodes are one decoder input: each sees its ancestors, at their distance in depth.
        """
        embedded, mask = self._embedded(pieces, words)
        read = self.t5.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        decoder, device = self.t5.decoder, pieces.device
        states = decoder.embed_tokens(tree.token.to(device)).expand(len(pieces), -1, -1)
        bias, unread = self._tree_bias(tree, device), _hidden(mask[:, None, None, :].bool())
        for block in decoder.block:
            states = block(states, _hidden(tree.sees.to(device))[None, None], bias, read, unread)[0]
        states = decoder.final_layer_norm(states)
        if self.t5.config.scale_decoder_outputs:
            states = states * self.t5.config.d_model**-0.5
        return tree.scores(self.t5.lm_head(states).log_softmax(-1))

    def _tree_bias(self, tree: IdTree, device: torch.device) -> torch.Tensor:
        """T5's bias for the distance of two nodes in depth, shape [1, heads, nodes, nodes]."""
        first: Any = self.t5.decoder.block[0]
        depth = tree.depth.to(device)
        levels = int(depth.max()) + 1
        bias: torch.Tensor = first.layer[0].SelfAttention.compute_bias(levels, levels)
        return bias[:, :, depth[:, None], depth]

    def _embedded(
        self, pieces: torch.Tensor, words: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        known = pieces >= 0
        both = self.t5.shared(pieces.clamp_min(0)) + self.words(words.clamp_min(0))
        return both, known.long()


def _hidden(seen: torch.Tensor) -> torch.Tensor:
    """A mask of what is seen, as a number to add to attention's logits."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill(
        ~seen, torch.finfo(torch.float32).min
    )


def from_scratch(vocabulary: int, d_model: int, layers: int, dropout: float) -> Network:
    """A T5 of random weights, heads of 32 dimensions and feed-forward layers of four widths."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=d_model,
        d_kv=32,
        d_ff=4 * d_model,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=d_model // 32,
        dropout_rate=dropout,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,  # type: ignore[call-arg]
    )
    return Network(T5ForConditionalGeneration(config), spread=1.0)


def pretrained(backbone: str, dropout: float) -> Network:
    """A T5 by its Hub id or folder.

    Raises:
        BackboneError: none can be loaded there.
    """
    try:
        t5 = T5ForConditionalGeneration.from_pretrained(
            backbone, dtype=torch.float32, dropout_rate=dropout
        )
    except (OSError, ValueError) as error:
        raise _unloaded(backbone, error) from error
    return Network(t5, spread=0.02)


def _unloaded(backbone: str, error: Exception) -> BackboneError:
    return BackboneError(f"{backbone}: no T5 could be loaded ({error}); give a T5's id or folder.")


class OwnPieces:
    """Words of the prompts, and numbers by two digits, of one length each.

    The same digits in another place of the number are another piece. SentencePiece tells only the
    first one apart; a pretrained T5 hears the rest from its neighbours, which takes long to learn.
    """

    start, end = PAD, END

    def __init__(self, names: Iterable[str], most: int) -> None:
        """Give pieces to names without digits, and to numbers up to ``most``."""
        self._pairs = -(-len(str(most)) // 2)
        self._ids = {name: at for at, name in enumerate(names, start=2)}
        self._digits = len(self._ids) + 2
        self.size = self._digits + 100 * self._pairs

    def __call__(self, word: str) -> Pieces:
        name, digits = re.fullmatch(r"(\D*)(\d*)", word).groups()  # type: ignore[union-attr]
        pieces = [self._ids[name]] if name else []
        for place in range(self._pairs if digits else 0):
            pair = digits.zfill(2 * self._pairs)[2 * place : 2 * place + 2]
            pieces.append(self._digits + 100 * place + int(pair))
        return tuple(pieces)


class PretrainedPieces:
    """A pretrained T5's own pieces of each word."""

    start = PAD

    def __init__(self, backbone: str) -> None:
        """Take the tokenizer of a T5 by its Hub id or folder."""
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(backbone)
        except (OSError, ValueError) as error:
            raise _unloaded(backbone, error) from error
        self.end = self._tokenizer.eos_token_id
        self.size = len(self._tokenizer)

    def __call__(self, word: str) -> Pieces:
        return tuple(self._tokenizer(word, add_special_tokens=False).input_ids)

"""P5's tokenizers, the tree of item numbers, and a T5 that scores all item numbers at once."""

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
"""Token ids of a word or an item number."""
MOST_WORDS = 512
"""Number of word-index embeddings; later words share the last one."""
PAD, END = 0, 1
"""Token ids of padding and end of sequence in T5."""


def closed(words: Sequence[Pieces], end: int = END) -> list[Pieces]:
    """Append the end token to each word that is a prefix of another word.

    For all others, the last token already determines the word.

    Args:
        words: token ids of each word.
        end: id of the end token.
    """
    beginnings = {word[:cut] for word in words for cut in range(len(word))}
    return [(*word, end) if word in beginnings else word for word in words]


class IdTree:
    """All proper prefixes of the items' ids: what a decoder reads to score every item.

    Attributes:
        ids: tokens of each item's id; no id is a prefix of another.
        token: last token of each prefix, shape [nodes]; node 0 is the empty prefix.
        depth: length of each prefix, shape [nodes].
        sees: whether one node's prefix starts with another's, shape [nodes, nodes].
        at: nodes on the path of each item's id, shape [items, longest id]; -1 after an id's end.
        piece: token that the id takes at each of these nodes, of the same shape.
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
        """Sum log-probabilities along each id.

        Args:
            log_probabilities: shape [rows, nodes, vocabulary].

        Returns:
            Shape [rows, items].
        """
        total = log_probabilities.new_zeros(len(log_probabilities), len(self.ids))
        device = log_probabilities.device
        for at, piece in zip(self.at.T.to(device), self.piece.T.to(device), strict=True):
            total += torch.where(at >= 0, log_probabilities[:, at, piece], 0.0)
        return total


class Network(nn.Module):
    """A T5 whose encoder also gets an embedding of each token's word index."""

    def __init__(self, t5: T5ForConditionalGeneration, *, spread: float) -> None:
        """Add the word-index embeddings, initialised with standard deviation ``spread``."""
        super().__init__()
        self.t5 = t5
        self.words = nn.Embedding(MOST_WORDS, t5.config.d_model)
        nn.init.normal_(self.words.weight, std=spread)

    def loss(
        self, pieces: torch.Tensor, words: torch.Tensor, answers: torch.Tensor
    ) -> torch.Tensor:
        """Return the cross-entropy of a batch's answers, each token given those before it."""
        labels = answers.masked_fill(answers < 0, -100)
        embedded, mask = self._embedded(pieces, words)
        logits = self.t5(inputs_embeds=embedded, attention_mask=mask, labels=labels).logits
        return cross_entropy(logits.flatten(0, 1), labels.flatten())

    @torch.inference_mode()
    def item_scores(self, pieces: torch.Tensor, words: torch.Tensor, tree: IdTree) -> torch.Tensor:
        """Return log-probabilities of all ids, shape [rows, items].

        The tree's nodes form one decoder input. Each node attends to its ancestors, at their
        distance in depth.
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
        """Return T5's bias for two nodes' difference in depth, shape [1, heads, nodes, nodes]."""
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
    """Turn a mask of visible positions into a term that is added to the attention logits."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill(
        ~seen, torch.finfo(torch.float32).min
    )


def from_scratch(vocabulary: int, d_model: int, layers: int, dropout: float) -> Network:
    """Create a randomly initialised T5: 32 dimensions per head, feed-forward of four widths."""
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
    """Load a T5 by its Hub id or folder.

    Raises:
        BackboneError: no T5 can be loaded from there.
    """
    try:
        t5 = T5ForConditionalGeneration.from_pretrained(
            backbone, dtype=torch.float32, dropout_rate=dropout
        )
    except (OSError, ValueError) as error:
        raise _unloaded(backbone, error) from error
    return Network(t5, spread=0.02)


def _unloaded(backbone: str, error: Exception) -> BackboneError:
    return BackboneError(
        f"No T5 could be loaded from {backbone} ({error}). Give the Hub id or folder of a T5."
    )


class OwnPieces:
    """Tokens for the words of the prompts, and for numbers as pairs of digits.

    All numbers have the same length, and the same digits at another place in the number are a
    different token. SentencePiece makes that distinction only for the first token of a number. A
    pretrained T5 has to infer the others' place from their neighbours, which takes long to learn.
    """

    start, end = PAD, END

    def __init__(self, names: Iterable[str], most: int) -> None:
        """Assign tokens to names without digits, and to numbers up to ``most``."""
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
    """The tokens that a pretrained T5's tokenizer gives each word."""

    start = PAD

    def __init__(self, backbone: str) -> None:
        """Load the tokenizer of a T5 by its Hub id or folder."""
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(backbone)
        except (OSError, ValueError) as error:
            raise _unloaded(backbone, error) from error
        self.end = self._tokenizer.eos_token_id
        self.size = len(self._tokenizer)

    def __call__(self, word: str) -> Pieces:
        return tuple(self._tokenizer(word, add_special_tokens=False).input_ids)

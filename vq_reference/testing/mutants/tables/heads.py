"""What goes wrong with heads, projections and the cosine metric."""

from vq_reference.testing.mutants.mutant import Mutant

LAYER = "vq_reference.nn.vector_quantize"
BOOKS = "vq_reference.nn.codebooks"

MUTANTS = (
    Mutant(
        "all-heads-choose-in-the-first-codebook",
        BOOKS,
        replace="chosen = [nearest(rows, its_codes) for",
        by="chosen = [nearest(rows, codes[0]) for",
        why="separate codebooks are there and not looked at",
        killed_by="heads.nearest",
    ),
    Mutant(
        "cosine-without-direction",
        LAYER,
        replace="return unit(heads) if self.metric",
        by="return heads if self.metric",
        why="tokens keep their length beside unit codes",
        killed_by="heads.loss",
    ),
    Mutant(
        "all-heads-look-up-in-the-first-codebook",
        BOOKS,
        replace="nn.functional.embedding(row, its_codes)",
        by="nn.functional.embedding(row, codes[0])",
        why="every head gets a code of the first codebook",
        killed_by="heads.output",
    ),
    Mutant(
        "raw-codes-come-out",
        LAYER,
        replace="q = self.codebooks.look_up(codes, indices)",
        by="q = self.codebooks.look_up(self.codebooks.raw().to(codes), indices)",
        why="the cosine metric chooses by direction and puts out codes of any length",
        killed_by="heads.output",
    ),
    Mutant(
        "loss-summed-over-entries",
        LAYER,
        replace="valid.sum() * self.heads * self.codebook_dim",
        by="valid.sum() * self.heads",
        why="the loss is a sum over the entries of a head",
        killed_by="heads.loss",
    ),
    Mutant(
        "direction-without-its-gradient",
        "vq_reference.nn.cosine",
        replace="torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)",
        by="torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).detach()",
        why="the length is a constant in the gradient of the direction",
        killed_by="heads.gradient",
    ),
    Mutant(
        "encoder-not-pulled",
        LAYER,
        replace="encoder_half = (tokens - q.detach())",
        by="encoder_half = (tokens.detach() - q)",
        why="the encoder half pulls the codes and not the encoder",
        killed_by="heads.gradient",
    ),
    Mutant(
        "decodes-raw-codes",
        LAYER,
        replace="q = self.codebooks.look_up(self.codes, indices)",
        by="q = self.codebooks.look_up(self.codebooks.raw(), indices)",
        why="decoding gives codes of another length than forward does",
        killed_by="heads.decode",
    ),
    Mutant(
        "heads-interleaved",
        LAYER,
        replace="heads = wide.reshape(*valid.shape, self.heads, self.codebook_dim)",
        by="heads = wide.reshape(*valid.shape, self.codebook_dim, self.heads).transpose(-1, -2)",
        why="a head takes every H-th channel where its neighbours were meant",
        killed_by="heads.independent",
    ),
)

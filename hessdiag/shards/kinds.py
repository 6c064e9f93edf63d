"""How modules of sharded models are served: the kinds of units, in the order in which they are asked."""

from hessdiag.shards.opened import opened
from hessdiag.shards.recompute import recomputed
from hessdiag.shards.units import Kind
from hessdiag.shards.vocabulary.streamed import streamed

KINDS: tuple[Kind, ...] = (opened, streamed, recomputed)  # the last serves every module

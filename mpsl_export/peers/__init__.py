"""A `.nir` file of ours in, the ready network of another framework out.

NIR cannot say how a neuron of ours resets, and each framework fills that in with a default of its
own. A loader lets the framework import the file by itself and then puts right what NIR cannot say.
What it returns is the framework's own network: to train, to measure, to convert. It knows no run
and no proof; `make peers` installs the frameworks, each is imported when its loader is called.
"""

from mpsl_export.peers.norse import load_norse
from mpsl_export.peers.sinabs import load_sinabs
from mpsl_export.peers.snntorch import load_snntorch
from mpsl_export.peers.spikingjelly import load_spikingjelly

__all__ = ["load_norse", "load_sinabs", "load_snntorch", "load_spikingjelly"]

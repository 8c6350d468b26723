"""All networks, by the name that `network.kind` gives them."""

from __future__ import annotations

from skelfit.learning.networks.hsmr_network import HsmrNetwork
from skelfit.learning.networks.network import Network, NetworkConfig
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork

NETWORKS: dict[str, type[Network]] = {"skel-cf": SkelCfNetwork, "hsmr": HsmrNetwork}


def make_network(config: NetworkConfig) -> Network:
    """The network of a configuration, with random weights."""
    return NETWORKS[config.kind](config)

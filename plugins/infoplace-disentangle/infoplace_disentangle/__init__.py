"""Objectives for infoplace that make codes, or whole blocks of them, independent.

Bounds: :class:`BetaTcvae`, :class:`Hfvae`, :class:`FactorVae`, :class:`DipVae` and :class:`InfoVae`. Additions to a bound, about
whether two blocks say the same: :class:`Hsic` and :class:`Club`. They are registered under the names ``beta_tcvae``, ``hfvae``,
``factor_vae``, ``dip_vae``, ``info_vae``, ``hsic`` and ``club``, and serve any Pyro model and guide, as infoplace's own do.
"""

from infoplace_disentangle.decomposition import BetaTcvae, Hfvae
from infoplace_disentangle.independence import Club, Hsic
from infoplace_disentangle.matching import DipVae, InfoVae
from infoplace_disentangle.ratio import FactorVae

__version__ = "0.1.0"

__all__ = ["BetaTcvae", "Club", "DipVae", "FactorVae", "Hfvae", "Hsic", "InfoVae"]

"""Synthetic abdominal CTs in KiTS19's layout, and simulated CTs around given label maps.

A label map comes first: drawn here, or given. Then the abdomen is painted around it, the
kidneys into it, and the scanner's blur and noise go over all.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from tunet_lib.phantom.make import make_phantom, simulate_ct
from tunet_lib.phantom.write import write_phantoms

__all__ = ["make_phantom", "simulate_ct", "write_phantoms"]

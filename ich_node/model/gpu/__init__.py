"""The slice network on a GPU: from Hounsfield units in the host's memory to embeddings, without the host in between."""

from ich_node.model.gpu.compiling import Compiler, compile_folder
from ich_node.model.gpu.device_network import BUCKETS, DeviceNetwork
from ich_node.model.gpu.hounsfield_codes import HounsfieldCodes

__all__ = ["BUCKETS", "Compiler", "DeviceNetwork", "HounsfieldCodes", "compile_folder"]

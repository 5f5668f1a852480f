"""Draws a rig to pictures: OpenGL without a window (EGL; Mesa's llvmpipe on a CPU).

In: a `Rig`, an expression float32 [52], a `Pose`, optionally a `Framing`. Out: `Picture`. Remembers: the GL context and
the meshes and textures of the last few heads. Latency: one picture at a time.

A key light with a shadow map, a fill and two rim lights; one compiled shader for each material, since a shader with
branches for all of them is three times slower on llvmpipe; supersampling for the edges.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from importlib import resources
from types import TracebackType
from typing import Any, Final

import moderngl
import numpy as np

from svp_stream.errors import MediaError
from svp_stream.packets import Bytes, Float32, Pose
from svp_stream.synthetic.camera import Camera, Framing, look_at, orthographic, portrait
from svp_stream.synthetic.headfile import Kind
from svp_stream.synthetic.rig import LANDMARKS, Part, Rig, Shape

__all__ = ["LANDMARKS", "Framing", "Picture", "Renderer"]

SHADOW_SIZE: Final = 512
SHADOW_HALF: Final = 0.34  # metres around the face that the shadow map covers
SHADOW_BLUR: Final = 0.0017  # reach of the four shadow taps as a fraction of the map
HEADS_KEPT: Final = 4  # heads whose meshes and textures stay in the context
ORDER: Final = (Kind.SKIN, Kind.CLOTH, Kind.EYE, Kind.TEETH, Kind.HAIR)  # front surfaces first: hidden ones cost little

# Directions to the lights (key, fill, rim, rim) and their linear colours; ambient light from above and below.
LIGHTS: Final = ((-0.5, 0.45, 0.8), (0.75, 0.05, 0.65), (0.65, 0.45, -0.75), (-0.8, 0.3, -0.6))
COLOURS: Final = ((1.75, 1.62, 1.48), (0.50, 0.52, 0.58), (1.1, 1.15, 1.25), (0.45, 0.42, 0.4))
SKY: Final = (0.36, 0.38, 0.42)
GROUND: Final = (0.2, 0.17, 0.15)
BACKGROUND: Final = ((0.30, 0.34, 0.40), (0.13, 0.15, 0.19))  # middle and rim of the gradient, linear


@dataclass(frozen=True)
class Picture:
    """A drawn frame: `rgb` uint8 [H, W, 3], matte `alpha` uint8 [H, W] (person 255), `landmarks` float32 [L, 2] pixels
    in the order of `LANDMARKS`, `kps` float32 [3, 2] pixels: eye centre on picture left, on picture right, nose tip."""

    rgb: Bytes
    alpha: Bytes
    landmarks: Float32
    kps: Float32


def _source(*files: str, **defines: int) -> str:
    folder = resources.files("svp_stream.synthetic") / "shaders"
    head = "#version 330\n" + "".join(f"#define {k} {v}\n" for k, v in defines.items())
    return head + "".join((folder / f).read_text(encoding="utf-8") for f in files)


class _Mesh:
    """One part in the context: buffers, textures, and its two vertex arrays (picture and shadow)."""

    def __init__(self, part: Part, renderer: Renderer, textures: dict[int, Any]) -> None:
        file, gl = part.file, renderer.gl
        self.part = part
        rest = np.concatenate([file.positions, part.surface.rest], 1)
        fixed = np.concatenate([file.uv, file.occlusion[:, None], file.weights], 1)
        self.live = gl.buffer(rest.astype("f4").tobytes(), dynamic=part.moves)
        self._fixed = gl.buffer(fixed.astype("f4").tobytes())
        self._index = gl.buffer(file.triangles.astype("i4").tobytes())
        bump = file.normal_map is not None and file.bump > 0.0
        self.program = renderer.material(file.kind, bump, file.cutoff > 0.0)
        self.texture = _texture(gl, file.texture, textures)
        self.relief = _texture(gl, file.normal_map, textures) if bump and file.normal_map is not None else None
        fixed_layout = "2f 1f 2f"
        names = ("in_uv", "in_occlusion", "in_weights")
        self.visible = gl.vertex_array(self.program, [
            (self.live, "3f 3f", "in_position", "in_normal"), (self._fixed, fixed_layout, *names)], self._index)
        self.shadow = gl.vertex_array(renderer.shadow_program, [
            (self.live, "3f 12x", "in_position"), (self._fixed, "2f 4x 2f", "in_uv", "in_weights")], self._index)

    def release(self) -> None:
        for held in (self.visible, self.shadow, self.live, self._fixed, self._index):
            held.release()


def _texture(gl: Any, pixels: Bytes, made: dict[int, Any]) -> Any:
    if id(pixels) not in made:
        texture = gl.texture((pixels.shape[1], pixels.shape[0]), 4, np.ascontiguousarray(pixels).tobytes())
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        texture.repeat_x = texture.repeat_y = True
        made[id(pixels)] = texture
    return made[id(pixels)]


class Renderer:
    """One GL context that draws square pictures of `size` pixels, `supersample` x `supersample` samples each.

    A context manager; `close` frees the context. Not for use by two threads.

    Raises:
        MediaError: no EGL context can be made (Debian: libegl1 and libgl1-mesa-dri).
    """

    def __init__(self, size: int = 256, supersample: int = 2) -> None:
        if size < 16 or supersample < 1:
            raise ValueError(f"size must be at least 16 and supersample at least 1, not {size} and {supersample}")
        self.size, self.supersample = size, supersample
        try:
            options: dict[str, Any] = {"standalone": True, "backend": "egl"}
            self.gl: Any = moderngl.create_context(**options)
        except Exception as error:  # moderngl raises plain Exception
            raise MediaError(f"no OpenGL context through EGL (install libegl1 and libgl1-mesa-dri): {error}") from error
        self._heads: OrderedDict[int, tuple[Rig, list[_Mesh], dict[int, Any]]] = OrderedDict()
        self._materials: dict[tuple[Kind, bool, bool], Any] = {}
        self._targets()
        self._programs()

    def _targets(self) -> None:
        side = self.size * self.supersample
        self._samples = self.gl.texture((side, side), 4)
        self._canvas = self.gl.framebuffer([self._samples], self.gl.depth_renderbuffer((side, side)))
        self._output = self.gl.framebuffer([self.gl.texture((self.size, self.size), 4)])
        self._shadow_map = self.gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.compare_func = "<="
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow = self.gl.framebuffer(depth_attachment=self._shadow_map)

    def _programs(self) -> None:
        gl = self.gl
        self.shadow_program = gl.program(_source("skinning.glsl", "shadow.vert"), _source("shadow.frag"))
        screen = _source("screen.vert")
        background = gl.program(screen, _source("filmic.glsl", "background.frag"))
        background["inner"], background["outer"] = BACKGROUND
        resolve = gl.program(screen, _source("resolve.frag"))
        resolve["factor"] = self.supersample
        triangle = gl.buffer(np.array([-1, -1, 3, -1, -1, 3], "f4").tobytes())
        self._background = gl.vertex_array(background, [(triangle, "2f", "in_corner")])
        self._resolve = gl.vertex_array(resolve, [(triangle, "2f", "in_corner")])

    def material(self, kind: Kind, bump: bool, cutout: bool) -> Any:
        """The compiled program of a material, made on first use."""
        key = (kind, bump, cutout)
        if key not in self._materials:
            plain = () if kind is Kind.SKIN else ("plain.glsl",)
            program = self.gl.program(
                _source("skinning.glsl", "surface.vert"),
                _source("filmic.glsl", "surface.glsl", *plain, f"{kind.name.lower()}.glsl", "surface.frag",
                        NORMAL_MAP=int(bump), CUTOUT=int(cutout)))
            directions = np.array(LIGHTS, "f4")
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            colours = np.array(COLOURS, "f4")
            _set(program, colour_map=0, normal_map=1, shadow_map=2, sky=SKY, ground=GROUND, softness=SHADOW_BLUR)
            for name, rows in (("light_direction", directions), ("light_colour", colours)):
                program[name].write(rows[:program[name].array_length].tobytes())
            self._materials[key] = program
        return self._materials[key]

    def draw(self, rig: Rig, expression: Float32, pose: Pose, framing: Framing = Framing()) -> Picture:  # noqa: B008
        """Draw `rig` with `expression` float32 [52] (order of `arkit.ARKIT`) in `pose`, framed by `framing`."""
        shape = rig.shape(expression, pose)
        camera = portrait(rig.joints["LeftEye"], rig.joints["RightEye"], framing, pose)
        meshes = self._meshes(rig)
        for mesh, live in zip(meshes, shape.parts, strict=True):
            if live is not None:
                mesh.live.write(live)
        lamp = self._cast(rig, meshes, shape)
        self._paint(meshes, shape, camera, lamp)
        raw = np.frombuffer(self._output.read(components=4, alignment=1), np.uint8)
        rgba = raw.reshape(self.size, self.size, 4)[::-1]
        return Picture(np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3]),
                       camera.pixels(shape.landmarks, self.size), camera.pixels(shape.keypoints, self.size))

    def _meshes(self, rig: Rig) -> list[_Mesh]:
        if id(rig) not in self._heads:
            while len(self._heads) >= HEADS_KEPT:
                _, meshes, textures = self._heads.popitem(last=False)[1]
                for held in (*meshes, *textures.values()):
                    held.release()
            made: dict[int, Any] = {}
            meshes = [_Mesh(p, self, made) for p in rig.parts]
            self._heads[id(rig)] = (rig, meshes, made)
        self._heads.move_to_end(id(rig))
        return self._heads[id(rig)][1]

    def _cast(self, rig: Rig, meshes: list[_Mesh], shape: Shape) -> Float32:
        """Fill the shadow map; return the matrix of the key light."""
        middle = (rig.joints["LeftEye"] + rig.joints["RightEye"]) / 2.0 - np.array([0.0, 0.05, 0.06], np.float32)
        key = np.array(LIGHTS[0], np.float32)
        lamp = orthographic(SHADOW_HALF, 0.3, 1.7) @ look_at(middle + key / np.linalg.norm(key), middle)
        self._shadow.use()
        self._shadow.clear(depth=1.0)
        self.gl.enable_only(moderngl.DEPTH_TEST)
        _write(self.shadow_program, lamp=lamp.T, bones=shape.bones.transpose(0, 2, 1))
        for mesh in meshes:
            if mesh.part.file.casts:
                mesh.texture.use(0)
                self.shadow_program["cutoff"] = mesh.part.file.cutoff
                mesh.shadow.render()
        return lamp

    def _paint(self, meshes: list[_Mesh], shape: Shape, camera: Camera, lamp: Float32) -> None:
        gl = self.gl
        self._canvas.use()
        self._canvas.clear(depth=1.0)
        gl.enable_only(moderngl.NOTHING)
        self._background.render()
        self._shadow_map.use(2)
        gl.blend_func = (moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA, moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA)
        for program in {id(m.program): m.program for m in meshes}.values():
            _write(program, camera=camera.matrix.T, lamp=lamp.T, bones=shape.bones.transpose(0, 2, 1),
                   eye=camera.place)
        for mesh in sorted(meshes, key=lambda m: (m.part.file.cutoff > 0.0, ORDER.index(m.part.file.kind))):
            file = mesh.part.file
            gl.enable_only(moderngl.DEPTH_TEST | (moderngl.BLEND if file.cutoff > 0.0 else 0)
                           | (moderngl.CULL_FACE if file.cull else 0))
            mesh.texture.use(0)
            if mesh.relief is not None:
                mesh.relief.use(1)
            _set(mesh.program, bump=file.bump, cutoff=file.cutoff, tint=file.tint, gloss=file.gloss,
                 saturation=file.saturation)
            mesh.visible.render()
        gl.enable_only(moderngl.NOTHING)
        self._output.use()
        self._samples.use(0)
        self._resolve.render()

    def close(self) -> None:
        """Free the context and all it holds."""
        self._heads.clear()
        self.gl.release()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _set(program: Any, **values: Any) -> None:
    """Set the uniforms that the compiler kept."""
    for name, value in values.items():
        if name in program:
            program[name] = value


def _write(program: Any, **values: Float32) -> None:
    for name, value in values.items():
        if name in program:
            program[name].write(np.ascontiguousarray(value, np.float32).tobytes())

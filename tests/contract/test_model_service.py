"""Models over every transport."""

from __future__ import annotations

import pytest

from contract.transports import CallError, Transport
from localplane.v1 import backend_pb2, model_pb2
from localplane.v1 import model_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def names(transport: Transport, **options: object) -> list[str]:
    request = pb.ListModelsRequest(**options)  # type: ignore[arg-type]  # the test's options
    answer = await transport.call("ModelService.ListModels", request)
    return [entry.id for entry in answer.data]


class TestListModels:
    async def test_configured_first(self, transport: Transport) -> None:
        """Configurations by name, then loose files; files that configurations use are left out."""
        listed = await names(transport)

        assert sorted(listed) == listed
        assert "tiny" in listed
        assert "tiny.gguf" not in listed

    async def test_used_files_on_request(self, transport: Transport) -> None:
        """Asked for, they come behind the configurations."""
        listed = await names(transport, exclude_configured=False)

        assert ["broken.gguf", "tiny.gguf"] == listed[-2:]

    async def test_filter(self, transport: Transport) -> None:
        """A regular expression matches somewhere in the name."""
        assert ["tiny", "vectors"] == await names(transport, filter="^tin|ors$")

    async def test_mad_filter(self, transport: Transport) -> None:
        """An expression that would take others for ever takes no time."""
        assert [] == await names(transport, filter="(x+x+)+y" * 20)

    @pytest.mark.parametrize("options", [{"filter": "("}, {"page_size": -1}, {"page_token": "?"}])
    async def test_bad_arguments(self, transport: Transport, options: dict[str, object]) -> None:
        """What cannot be asked is refused with the name of the field."""
        with pytest.raises(CallError) as caught:
            await names(transport, **options)

        assert "INVALID_ARGUMENT" == caught.value.reason
        assert next(iter(options)) == caught.value.metadata["field"]

    async def test_pages(self, transport: Transport) -> None:
        """All names, each once."""
        everything, token, seen = await names(transport), "", []
        while True:
            request = pb.ListModelsRequest(page_size=3, page_token=token)
            answer = await transport.call("ModelService.ListModels", request)
            seen += [entry.id for entry in answer.data]
            token = answer.next_page_token
            if not token:
                break

        assert everything == seen


class TestGetModel:
    @pytest.mark.parametrize("name", ["tiny", "gpt-tiny"])
    async def test_by_name_and_alias(self, transport: Transport, name: str) -> None:
        """What the configuration says, and the size of the file."""
        model = await transport.call("ModelService.GetModel", pb.GetModelRequest(name=name))

        assert model.size_bytes > 0
        model.ClearField("size_bytes")
        assert (
            model_pb2.Model(
                name="tiny",
                aliases=["gpt-tiny"],
                backend="llama-cpp",
                file="tiny.gguf",
                config_file="tiny.yaml",
                context_size=512,
                state=backend_pb2.BACKEND_STATE_STOPPED,
            )
            == model
        )

    async def test_file_in_a_folder(self, transport: Transport) -> None:
        """A slash in a name is part of the name, also in a path."""
        request = pb.GetModelRequest(name="sub dir/deep one.gguf")
        model = await transport.call("ModelService.GetModel", request)

        assert "sub dir/deep one.gguf" == model.name

    @pytest.mark.parametrize("name", ["nobody", "../tiny.gguf", "日本語"])
    async def test_unknown(self, transport: Transport, name: str) -> None:
        """There is none of that name."""
        with pytest.raises(CallError) as caught:
            await transport.call("ModelService.GetModel", pb.GetModelRequest(name=name))

        assert ("MODEL_NOT_FOUND", {"model": name}) == (
            caught.value.reason,
            caught.value.metadata,
        )


class TestReloadModels:
    async def test_reload(self, transport: Transport) -> None:
        """The folder is read again and what is wrong with it is told."""
        answer = await transport.call("ModelService.ReloadModels", pb.ReloadModelsRequest())

        assert ("models reloaded", []) == (answer.message, list(answer.problems))
        assert answer.models == len(await names(transport))

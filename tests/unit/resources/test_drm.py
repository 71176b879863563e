"""Graphics devices in a made-up sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.resources.drm import read_cards
from localplane_server.resources.figures import Source, Vendor


class Sysfs:
    """Devices as the kernel would lay them out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.drm = root / "class/drm"
        self.drm.mkdir(parents=True)

    def card(self, number: int, address: str, *, driver: str | None, **files: object) -> Path:
        device = self.root / "devices/pci0000:00" / address
        for name, value in files.items():
            file = device / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
        if driver is not None:
            folder = self.root / "bus/pci/drivers" / driver
            folder.mkdir(parents=True, exist_ok=True)
            (device / "driver").symlink_to(folder)
        card = device / "drm" / f"card{number}"
        card.mkdir(parents=True)
        (card / "device").symlink_to(device)
        (self.drm / f"card{number}").symlink_to(card)
        return device


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_amd(sysfs: Sysfs) -> None:
    """The driver of AMD tells nearly everything."""
    sysfs.card(
        0,
        "0000:03:00.0",
        driver="amdgpu",
        vendor="0x1002",
        device="0x744c",
        product_name="Radeon RX 7900 XTX",
        mem_info_vram_total=25753026560,
        mem_info_vram_used=1073741824,
        gpu_busy_percent=37,
        hwmon__hwmon4__temp1_input=54000,
        hwmon__hwmon4__temp2_input=66000,
    )
    (sysfs.root / "bus/pci/drivers/amdgpu/module").mkdir()
    (sysfs.root / "bus/pci/drivers/amdgpu/module/version").write_text("6.10.5\n")
    (card,) = read_cards(sysfs.drm)

    assert (Source.SYSFS, Vendor.AMD) == (card.source, card.vendor)
    assert ("Radeon RX 7900 XTX", "0000:03:00.0") == (card.name, card.address)
    assert (25753026560, 1073741824) == (card.memory_total, card.memory_used)
    assert (37.0, 54.0) == (card.utilization_percent, card.temperature_celsius)
    assert ("amdgpu", "6.10.5") == (card.driver, card.driver_version)
    assert {} == card.unknown


def test_intel(sysfs: Sysfs) -> None:
    """The driver of Intel tells little; each missing figure says so."""
    device = sysfs.card(
        1,
        "0000:00:02.0",
        driver="xe",
        vendor="0x8086",
        device="0xe20b",
        hwmon__hwmon1__temp1_input=41500,
    )
    (card,) = read_cards(sysfs.drm)

    assert (Vendor.INTEL, "Intel 8086:e20b", "xe") == (card.vendor, card.name, card.driver)
    assert 41.5 == card.temperature_celsius
    assert (None, None) == (card.memory_total, card.utilization_percent)
    missing = {"memory_total", "memory_used", "utilization_percent", "driver_version"}
    assert missing == card.unknown.keys()
    assert "the driver xe does not tell it in sysfs" == card.unknown["memory_total"]

    (device / "drm/card1/lmem_total_bytes").write_text("1000\n")
    (device / "drm/card1/lmem_avail_bytes").write_text("600\n")
    (card,) = read_cards(sysfs.drm)
    assert (1000, 400) == (card.memory_total, card.memory_used)


def test_which_devices_count(sysfs: Sysfs) -> None:
    """Cards in their order; neither connectors, nor the screens of virtual machines, nor render nodes."""
    sysfs.card(10, "0000:0a:00.0", driver="amdgpu", vendor="0x1002", device="0x1")
    sysfs.card(2, "0000:02:00.0", driver=None, vendor="0x10de", device="0x2684")
    sysfs.card(0, "0000:00:01.0", driver="virtio-pci", vendor="0x1af4", device="0x1050")
    (sysfs.drm / "card2-HDMI-A-1").mkdir()
    (sysfs.drm / "renderD128").mkdir()
    cards = read_cards(sysfs.drm)

    assert ["0000:02:00.0", "0000:0a:00.0"] == [card.address for card in cards]
    assert (Vendor.NVIDIA, "NVIDIA 10de:2684", None) == (
        cards[0].vendor,
        cards[0].name,
        cards[0].driver,
    )
    assert "no driver" in cards[0].unknown["driver"]
    assert "no driver" in cards[0].unknown["memory_total"]


def test_machine_without_graphics(tmp_path: Path) -> None:
    """No folder, no devices, no fault."""
    assert [] == read_cards(tmp_path / "nowhere")


def test_nonsense(sysfs: Sysfs) -> None:
    """Files that say nothing sensible are as good as none."""
    sysfs.card(
        0, "0000:03:00.0", driver="amdgpu", vendor="0x1002", device="", gpu_busy_percent="busy"
    )
    (card,) = read_cards(sysfs.drm)

    assert card.utilization_percent is None
    assert "utilization_percent" in card.unknown

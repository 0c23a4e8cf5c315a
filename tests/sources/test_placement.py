"""Which unit, container and pod a process belongs to, by the paths that runtimes make."""

import pytest

from pgsonar.sources.placement import Placement, parse_cgroup

ID = "3f4a" * 16
POD = "0b6c2f5e-6c5b-4c53-9c7e-0a4a4f8f2d11"
UNDERSCORED = POD.replace("-", "_")


@pytest.mark.parametrize(
    ("text", "placement"),
    [
        ("", Placement()),
        ("0::/\n", Placement()),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", Placement()),
        ("0::/system.slice/payroll.service\n", Placement("payroll.service")),
        ("0::/system.slice/system-worker.slice/worker@2.service/child\n", Placement("worker@2.service")),
        ("0::/user.slice/user-7.slice/user@7.service/app.slice/jobs.service\n", Placement("jobs.service")),
        (f"0::/system.slice/docker-{ID}.scope\n", Placement(None, ID)),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", Placement(None, ID)),
        (f"12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n", Placement(None, ID)),
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope",
            Placement(None, ID, POD),
        ),
        (f"0::/kubepods/besteffort/pod{POD}/{ID}\n", Placement(None, ID, POD)),
        (f"0::/../../pod{POD}/{ID}\n", Placement(None, ID, POD)),
        (
            f"0::/system.slice/containerd.service/kubepods-pod{UNDERSCORED}.slice:cri-containerd:{ID}",
            Placement(None, ID, POD),
        ),
        ("4:cpu,cpuacct:/system.slice/old.service\n0::/\n", Placement("old.service")),
    ],
)
def test_a_path_names_its_parts(text, placement):
    assert parse_cgroup(text) == placement

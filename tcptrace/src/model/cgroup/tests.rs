//! Paths as runtimes' documentation and their users' reports show them.

use super::*;

/// Every id of the table.
const ID: &str = "9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98";
/// That of a container around it.
const OUTER: &str = "d6701ec289c56e4391acb11d07474b3139466857a305490575508a8b7a9fcf22";
/// A pod of the API server, and one from a file on the node.
const POD: &str = "019c1fe8-0d92-4aa0-b61c-4df58bdde71c";
const STATIC_POD: &str = "1864dd0546310be9937c37cf88024cb8";

struct Case {
    /// Project, and the kind of document that shows such a path.
    from: &'static str,
    /// `ID`, `OUTER`, `POD`, `P_D` (underscores) and `STATIC` stand for the above.
    path: &'static str,
    runtime: Option<Runtime>,
    container: Option<&'static str>,
    pod: Option<&'static str>,
    unit: Option<&'static str>,
}

const NONE: Case = Case { from: "", path: "", runtime: None, container: None, pod: None, unit: None };

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { from: "Docker: runtime metrics manual, systemd driver", path: "/system.slice/docker-ID.scope",
        runtime: Some(Runtime::Docker), container: Some(ID), unit: Some("docker-ID.scope"), ..NONE },
    Case { from: "Docker: runtime metrics manual, cgroupfs driver", path: "/docker/ID",
        runtime: Some(Runtime::Docker), container: Some(ID), ..NONE },
    Case { from: "Docker: report about the manual, rootless mode",
        path: "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
        runtime: Some(Runtime::Docker), container: Some(ID), unit: Some("docker-ID.scope"), ..NONE },
    Case { from: "Docker: report about --cgroup-parent", path: "/my-example-cgroup.slice/docker-ID.scope",
        runtime: Some(Runtime::Docker), container: Some(ID), unit: Some("docker-ID.scope"), ..NONE },
    Case { from: "Amazon ECS agent: change for cgroup v2",
        path: "/ecstasks.slice/ecstasks-STATIC.slice/docker-ID.scope",
        runtime: Some(Runtime::Docker), container: Some(ID), unit: Some("docker-ID.scope"), ..NONE },
    Case { from: "Amazon ECS agent: report about names", path: "/ecs/POD/ID", container: Some(ID), ..NONE },
    Case { from: "nerdctl: change to Falco's container plugin", path: "/system.slice/nerdctl-ID.scope",
        runtime: Some(Runtime::Containerd), container: Some(ID), unit: Some("nerdctl-ID.scope"), ..NONE },
    Case { from: "containerd: report with a guaranteed pod",
        path: "/kubepods.slice/kubepods-podP_D.slice/cri-containerd-ID.scope",
        runtime: Some(Runtime::Containerd), container: Some(ID), pod: Some(POD),
        unit: Some("cri-containerd-ID.scope") },
    Case { from: "containerd: tree in a report to Netdata, pod from a file",
        path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/cri-containerd-ID.scope",
        runtime: Some(Runtime::Containerd), container: Some(ID), pod: Some(STATIC_POD),
        unit: Some("cri-containerd-ID.scope") },
    Case { from: "containerd: kubelet with systemd's names, runtime without; report to Elastic's agent",
        path: "/system.slice/containerd.service/kubepods-burstable-podP_D.slice:cri-containerd:ID",
        runtime: Some(Runtime::Containerd), container: Some(ID), pod: Some(POD), unit: Some("containerd.service") },
    Case { from: "kind: NRI's log of a node, whose slices begin with kubelet",
        path: "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
               kubelet-kubepods-besteffort-podP_D.slice/cri-containerd-ID.scope",
        runtime: Some(Runtime::Containerd), container: Some(ID), pod: Some(POD),
        unit: Some("cri-containerd-ID.scope") },
    Case { from: "minikube: systemctl status of a node in Docker",
        path: "/docker/OUTER/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podP_D.slice/crio-ID.scope",
        runtime: Some(Runtime::Crio), container: Some(ID), pod: Some(POD), unit: Some("crio-ID.scope") },
    Case { from: "minikube: the same, outside of the pods", path: "/docker/OUTER/system.slice/kubelet.service",
        runtime: Some(Runtime::Docker), container: Some(OUTER), unit: Some("kubelet.service"), ..NONE },
    Case { from: "Kubernetes, cgroupfs driver: comment in kubectl-trace", path: "/kubepods/burstable/podPOD/ID",
        container: Some(ID), pod: Some(POD), ..NONE },
    Case { from: "cri-dockerd: tree in a report to Pharos",
        path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podP_D.slice/docker-ID.scope",
        runtime: Some(Runtime::Docker), container: Some(ID), pod: Some(POD), unit: Some("docker-ID.scope") },
    Case { from: "CRI-O: comment in traceloop",
        path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice/crio-ID.scope",
        runtime: Some(Runtime::Crio), container: Some(ID), pod: Some(POD), unit: Some("crio-ID.scope") },
    Case { from: "CRI-O: crun puts processes one below",
        path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice/crio-ID.scope/container",
        runtime: Some(Runtime::Crio), container: Some(ID), pod: Some(POD), unit: Some("crio-ID.scope") },
    Case { from: "CRI-O: its monitor",
        path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podP_D.slice/crio-conmon-ID.scope",
        pod: Some(POD), unit: Some("crio-conmon-ID.scope"), ..NONE },
    Case { from: "Podman: source of its unit names", path: "/machine.slice/libpod-ID.scope/container",
        runtime: Some(Runtime::Podman), container: Some(ID), unit: Some("libpod-ID.scope"), ..NONE },
    Case { from: "Podman: its monitor", path: "/machine.slice/libpod-conmon-ID.scope",
        unit: Some("libpod-conmon-ID.scope"), ..NONE },
    Case { from: "Podman: discussion of rootless pods",
        path: "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_OUTER.slice/libpod-ID.scope/container",
        runtime: Some(Runtime::Podman), container: Some(ID), pod: Some(OUTER), unit: Some("libpod-ID.scope") },
    Case { from: "Podman, --cgroups=split (Quadlet): request to Coroot's agent",
        path: "/system.slice/app_name.service/libpod-payload-ID",
        runtime: Some(Runtime::Podman), container: Some(ID), unit: Some("app_name.service"), ..NONE },
    Case { from: "LXC, LXD: change to needrestart", path: "/lxc.payload.focal/system.slice/avahi-daemon.service",
        runtime: Some(Runtime::Lxc), container: Some("focal"), unit: Some("avahi-daemon.service"), ..NONE },
    Case { from: "LXC 3.1: report about its directories", path: "/lxc.payload/web/init.scope",
        runtime: Some(Runtime::Lxc), container: Some("web"), unit: Some("init.scope"), ..NONE },
    Case { from: "LXC before 3.1: the same", path: "/lxc/web", runtime: Some(Runtime::Lxc), container: Some("web"), ..NONE },
    Case { from: "LXC: its monitor", path: "/lxc.monitor.focal", ..NONE },
    Case { from: "Docker in LXD", path: "/lxc.payload.focal/system.slice/docker-ID.scope",
        runtime: Some(Runtime::Docker), container: Some(ID), unit: Some("docker-ID.scope"), ..NONE },
    Case { from: "systemd-nspawn: request about its delegated subtree",
        path: "/machine.slice/machine-my\\x2dcontainer.scope/payload/system.slice/sshd.service",
        runtime: Some(Runtime::Machined), container: Some("my-container"), unit: Some("sshd.service"), ..NONE },
    Case { from: "systemd-nspawn: unit template of its manual", path: "/machine.slice/systemd-nspawn@db.service/payload",
        runtime: Some(Runtime::Machined), container: Some("db"), unit: Some("systemd-nspawn@db.service"), ..NONE },
    Case { from: "systemd-nspawn: itself", path: "/machine.slice/systemd-nspawn@db.service/supervisor",
        unit: Some("systemd-nspawn@db.service"), ..NONE },
    Case { from: "libvirt: a virtual machine is no container",
        path: "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
        unit: Some("machine-qemu\\x2d1\\x2dvm.scope"), ..NONE },
    Case { from: "systemd: cgroup interface manual", path: "/system.slice/nginx.service", unit: Some("nginx.service"), ..NONE },
    Case { from: "systemd: instances of a template", path: "/system.slice/system-getty.slice/getty@tty1.service",
        unit: Some("getty@tty1.service"), ..NONE },
    Case { from: "systemd: a desktop's application, report to Podman",
        path: "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-f22f14d2-3d44-4304-9879-3fdd0df7b08e.scope",
        unit: Some("vte-spawn-f22f14d2-3d44-4304-9879-3fdd0df7b08e.scope"), ..NONE },
    Case { from: "systemd: a login session", path: "/user.slice/user-0.slice/session-3.scope",
        unit: Some("session-3.scope"), ..NONE },
    Case { from: "systemd: escaped names (cg_escape)", path: "/system.slice/_cgroup.service", unit: Some("cgroup.service"), ..NONE },
    Case { from: "systemd below the root (WSL): report to Docker", path: "/wsl-user/distro-1/systemd/init.scope",
        unit: Some("init.scope"), ..NONE },
    Case { from: "the root", path: "/", ..NONE },
    Case { from: "nearly an id", path: "/docker/9e073649debeec6d", ..NONE },
    Case { from: "nearly a pod", path: "/podcasts/pod1234", ..NONE },
];

/// With the placeholders filled in.
fn full(text: &str) -> String {
    let text = text.replace("STATIC", STATIC_POD).replace("P_D", &POD.replace('-', "_"));
    text.replace("POD", POD).replace("OUTER", OUTER).replace("ID", ID)
}

#[test]
fn every_runtime() {
    for case in CASES {
        let path = full(case.path);
        let cgroup = Cgroup::new(&path, None, None);
        let container = cgroup.container.as_ref();
        assert_eq!(container.map(|c| &*c.id), case.container, "{}: {path}", case.from);
        assert_eq!(container.and_then(|c| c.runtime), case.runtime, "{}: {path}", case.from);
        assert_eq!(cgroup.pod.as_deref(), case.pod, "{}: {path}", case.from);
        assert_eq!(cgroup.unit.as_deref(), case.unit.map(full).as_deref(), "{}: {path}", case.from);
    }
}

#[test]
fn names_of_the_runtimes_files_come_first() {
    let path = full("/kubepods/burstable/podPOD/ID");
    let cgroup = Cgroup::new(&path, Some("nginx"), Some("web-7c5d"));
    assert_eq!((cgroup.container.unwrap().label(), cgroup.pod.as_deref()), ("nginx", Some("web-7c5d")));
    assert_eq!(Cgroup::new("/user.slice", Some("nginx"), None).container, None, "no container, no name of one");
}

#[test]
fn what_a_filter_asks() {
    let nginx = Cgroup::new("/system.slice/nginx.service/workers", None, None);
    for (path, below) in [
        ("/system.slice", true),
        ("/system.slice/", true),
        ("/system.slice/nginx.service/workers", true),
        ("/", true),
        ("/system.slice/nginx", false),
        ("/system.slice/nginx.service/workers/x", false),
        ("/nginx.service", false),
    ] {
        assert_eq!(nginx.is_below(path), below, "{path}");
    }
    for (unit, inside) in [
        ("nginx", true),
        ("nginx.service", true),
        ("system.slice", true),
        ("system", false),
        ("ngin", false),
        ("workers", false),
        ("nginx.scope", false),
    ] {
        assert_eq!(nginx.is_in_unit(unit), inside, "{unit}");
    }
    let web = Cgroup::new(&full("/docker/ID"), Some("web"), None);
    for (container, inside) in
        [("web", true), (ID, true), ("9e07", true), ("9e073649debe", true), ("9e0", false), ("we", false), ("", false)]
    {
        assert_eq!(web.is_in_container(container), inside, "{container}");
    }
    assert!(!nginx.is_in_container("nginx"));
    let rootless = Cgroup::new("/user.slice/user-1000.slice/session-3.scope", None, None);
    assert_eq!((rootless.user(), web.user()), (Some(1000), None));
}

# Run inside the new root by image.py, at native speed: what is not in a package.
echo vm >/etc/hostname
: >/etc/resolv.conf
useradd --uid 1000 --create-home --shell /bin/bash tester
mkdir -p /var/lib/systemd/linger
touch /var/lib/systemd/linger/tester
systemctl enable --quiet vm-agent.service
# Of no use to a guest that lives for one job; they would start in its middle, or slow its boot.
systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer getty@tty1.service serial-getty@ttyS0.service \
	systemd-pstore.service systemd-random-seed.service podman.socket podman.service podman-restart.service \
	podman-auto-update.service podman-auto-update.timer containerd.service
systemctl --global --quiet mask podman.socket podman.service podman-restart.service podman-auto-update.timer

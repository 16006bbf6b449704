# Run inside the new root by image.py: SELinux's policy with container types, and the labels of all files. With the
# other snapshot they do no harm.
cat >/etc/selinux/config <<'CONFIG'
SELINUX=permissive
SELINUXTYPE=default
CONFIG
semodule --noreload --install /tmp/container.cil 2>/dev/null
rm -f /tmp/container.cil /tmp/setup.sh
# setfiles goes through /proc/self/fd.
mount -t proc proc /proc
setfiles -F /etc/selinux/default/contexts/files/file_contexts /
umount /proc

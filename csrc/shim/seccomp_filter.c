/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "seccomp_filter.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_CONDITIONS 6 /* a system call has no more arguments */

/* libseccomp <= 2.5.4 generates nonsense from a binary tree without rules, and a short list gains nothing from one. */
#define TREE_THRESHOLD 32
#define TREE_LEVEL 2

/* Since libseccomp 2.6; the headers of 2.5 lack it. */
typedef int (*export_mem_function)(const scmp_filter_ctx ctx, void *buffer, size_t *length);

/* clang-format off */
#define LIBRARY_FUNCTIONS(X)                                                                                           \
	X(version) X(init) X(release) X(arch_resolve_name) X(arch_native) X(arch_add) X(arch_remove) X(attr_set)       \
	X(syscall_resolve_name) X(syscall_resolve_name_arch) X(rule_add_array) X(export_bpf)
/* clang-format on */

static struct {
	int state; /* 0: not tried, 1: usable, or -errno */
#define X(name) __typeof__(seccomp_##name) *name;
	LIBRARY_FUNCTIONS(X)
#undef X
	export_mem_function export_bpf_mem; /* NULL before 2.6 */
} library;

static int load_library(void)
{
	if (library.state != 0)
		return library.state;
	void *handle = dlopen("libseccomp.so.2", RTLD_LAZY | RTLD_LOCAL);
	if (handle == NULL)
		return library.state = -ELIBACC;
#define X(name)                                                                                                        \
	*(void **)&library.name = dlsym(handle, "seccomp_" #name);                                                     \
	if (library.name == NULL)                                                                                      \
		return library.state = -ELIBBAD;
	LIBRARY_FUNCTIONS(X)
#undef X
	*(void **)&library.export_bpf_mem = dlsym(handle, "seccomp_export_bpf_mem");
	return library.state = 1;
}

/* A cursor over the description; once anything is out of bounds every later read answers zero. */
struct cursor {
	const uint8_t *next;
	size_t left;
	int bad;
};

static void take(struct cursor *from, void *to, size_t size)
{
	if (from->bad || size > from->left) {
		from->bad = 1;
		memset(to, 0, size);
		return;
	}
	memcpy(to, from->next, size);
	from->next += size;
	from->left -= size;
}

static uint32_t take_u32(struct cursor *from)
{
	uint32_t value;
	take(from, &value, sizeof value);
	return value;
}

static uint64_t take_u64(struct cursor *from)
{
	uint64_t value;
	take(from, &value, sizeof value);
	return value;
}

static const char *take_string(struct cursor *from)
{
	const char *text = (const char *)from->next;
	const uint8_t *end = from->bad ? NULL : memchr(from->next, 0, from->left);
	if (end == NULL) {
		from->bad = 1;
		return "";
	}
	from->left -= (size_t)(end - from->next) + 1;
	from->next = end + 1;
	return text;
}

static unsigned int take_conditions(struct cursor *from, struct scmp_arg_cmp conditions[MAX_CONDITIONS])
{
	uint32_t count = take_u32(from);
	if (count > MAX_CONDITIONS) {
		from->bad = 1;
		return 0;
	}
	for (uint32_t i = 0; i < count; i++) {
		conditions[i].arg = take_u32(from);
		conditions[i].op = (enum scmp_compare)take_u32(from);
		conditions[i].datum_a = take_u64(from);
		conditions[i].datum_b = take_u64(from);
	}
	return count;
}

/* One architecture's filter while it is filled. */
struct target {
	scmp_filter_ctx context;
	uint32_t arch;
	uint32_t default_action;
	int32_t last;
	unsigned int numbered; /* rules for calls that have a number here */
};

static int add_name(struct target *target, const char *name, uint32_t action, uint32_t set_count, struct cursor sets)
{
	int here = library.syscall_resolve_name_arch(target->arch, name);
	int native = library.syscall_resolve_name(name);

	/* Pseudo numbers (negative) are calls that only other architectures have, or that are multiplexed here. */
	if (here > target->last)
		target->last = here;
	/* A name that this library does not know is one that its kernels did not have: skipped, as all runtimes do. A
	 * rule that repeats the default action is refused by the library, but still says that the call is known. */
	if (native == __NR_SCMP_ERROR || action == target->default_action)
		return 0;
	if (here >= 0)
		target->numbered++;
	if (set_count == 0)
		return library.rule_add_array(target->context, action, native, 0, NULL);
	for (uint32_t i = 0; i < set_count; i++) {
		struct scmp_arg_cmp conditions[MAX_CONDITIONS];
		unsigned int count = take_conditions(&sets, conditions);
		int answer = library.rule_add_array(target->context, action, native, count, conditions);
		if (answer < 0)
			return answer;
	}
	return 0;
}

static int add_rule(struct target *target, struct cursor *from, struct shim_seccomp_result *result)
{
	uint32_t action = take_u32(from);
	uint32_t set_count = take_u32(from);
	uint32_t name_count = take_u32(from);
	struct cursor sets = *from;

	for (uint32_t i = 0; i < set_count && !from->bad; i++) {
		struct scmp_arg_cmp unused[MAX_CONDITIONS];
		take_conditions(from, unused);
	}
	for (result->name = 0; result->name < name_count; result->name++) {
		const char *name = take_string(from);
		if (from->bad)
			return -EBADMSG;
		int answer = add_name(target, name, action, set_count, sets);
		if (answer < 0)
			return answer;
	}
	return from->bad ? -EBADMSG : 0;
}

static int export_part(const struct target *target, int scratch, uint8_t *program, size_t capacity)
{
	if (library.export_bpf_mem != NULL) {
		size_t length = capacity;
		int answer = library.export_bpf_mem(target->context, program, &length);
		if (answer < 0)
			return answer == -ERANGE ? -ENOSPC : answer;
		return (int)length;
	}
	if (ftruncate(scratch, 0) < 0 || lseek(scratch, 0, SEEK_SET) < 0)
		return -errno;
	int answer = library.export_bpf(target->context, scratch);
	if (answer < 0)
		return answer;
	off_t length = lseek(scratch, 0, SEEK_CUR);
	if (length < 0)
		return -errno;
	if ((size_t)length > capacity)
		return -ENOSPC;
	ssize_t got = pread(scratch, program, (size_t)length, 0);
	if (got < 0)
		return -errno;
	return got == length ? (int)length : -EIO;
}

static int select_arch(const struct target *target)
{
	uint32_t native = library.arch_native();
	if (target->arch == native)
		return 0;
	/* Adding before removing lets the library compare byte orders. */
	int answer = library.arch_add(target->context, target->arch);
	return answer < 0 ? answer : library.arch_remove(target->context, native);
}

static int fill_target(struct target *target, struct cursor rules, uint32_t rule_count,
		       struct shim_seccomp_result *result)
{
	result->step = SHIM_SECCOMP_ARCH;
	int answer = select_arch(target);
	if (answer < 0)
		return answer;
	result->step = SHIM_SECCOMP_RULE;
	for (result->rule = 0; result->rule < rule_count; result->rule++) {
		answer = add_rule(target, &rules, result);
		if (answer < 0)
			return answer;
	}
	/* Without the tree the filter is longer to run, not wrong: a library that lacks it is fine. */
	if (target->numbered > TREE_THRESHOLD)
		library.attr_set(target->context, SCMP_FLTATR_CTL_OPTIMIZE, TREE_LEVEL);
	return 0;
}

static int compile_part(struct target *target, struct cursor rules, uint32_t rule_count, int scratch, uint8_t *program,
			size_t capacity, struct shim_seccomp_result *result)
{
	target->context = library.init(target->default_action);
	if (target->context == NULL) {
		result->step = SHIM_SECCOMP_DEFAULT;
		return -EINVAL;
	}
	int answer = fill_target(target, rules, rule_count, result);
	if (answer == 0) {
		result->step = SHIM_SECCOMP_EXPORT;
		answer = export_part(target, scratch, program, capacity);
	}
	library.release(target->context);
	return answer;
}

#define MAX_PARTS (sizeof((struct shim_seccomp_result *)0)->parts / sizeof(struct shim_seccomp_part))

/* The tokens of the listed architectures and, when it is not among them, the native one; their number or -errno. */
static int take_archs(struct cursor *from, uint32_t count, uint32_t tokens[MAX_PARTS],
		      struct shim_seccomp_result *result)
{
	uint32_t native = library.arch_native();
	int listed = 0;

	if (from->bad || count >= MAX_PARTS)
		return -EBADMSG;
	for (result->arch = 0; result->arch < count; result->arch++) {
		const char *name = take_string(from);
		if (from->bad)
			return -EBADMSG;
		tokens[result->arch] = library.arch_resolve_name(name);
		if (tokens[result->arch] == 0) {
			result->step = SHIM_SECCOMP_ARCH;
			return -ENOENT;
		}
		listed |= tokens[result->arch] == native;
	}
	if (!listed)
		tokens[count++] = native;
	return (int)count;
}

/*
 * Every architecture gets a filter of its own, because the library's time grows much faster than the number of rules:
 * three architectures in one take twice as long as three alone. The caller joins the programs.
 */
static int compile_parts(struct cursor from, int scratch, uint8_t *program, size_t capacity,
			 struct shim_seccomp_result *result)
{
	uint32_t tokens[MAX_PARTS];
	uint32_t default_action = take_u32(&from);
	uint32_t listed = take_u32(&from);
	uint32_t rule_count = take_u32(&from);
	size_t used = 0;

	int count = take_archs(&from, listed, tokens, result);
	if (count < 0)
		return count;
	for (result->arch = 0; result->arch < (uint32_t)count; result->arch++) {
		struct target target = {.arch = tokens[result->arch], .default_action = default_action};
		int length = compile_part(&target, from, rule_count, scratch, program + used, capacity - used, result);
		if (length < 0)
			return length;
		result->parts[result->part_count++] = (struct shim_seccomp_part){
			.arch = target.arch,
			.last = target.last,
			.length = (uint32_t)length,
		};
		used += (size_t)length;
	}
	result->step = SHIM_SECCOMP_NONE;
	return (int)used;
}

int shim_seccomp_compile(const uint8_t *description, size_t size, uint8_t *program, size_t capacity,
			 struct shim_seccomp_result *result)
{
	struct cursor from = {.next = description, .left = size};

	memset(result, 0, sizeof *result);
	result->step = SHIM_SECCOMP_LIBRARY;
	int answer = load_library();
	if (answer < 0)
		return answer;
	int scratch = -1;
	if (library.export_bpf_mem == NULL) {
		result->step = SHIM_SECCOMP_EXPORT;
		scratch = memfd_create("pyrunc-seccomp", MFD_CLOEXEC);
		if (scratch < 0)
			return -errno;
	}
	answer = compile_parts(from, scratch, program, capacity, result);
	if (scratch >= 0)
		close(scratch);
	if (answer == -EBADMSG)
		result->step = SHIM_SECCOMP_DESCRIPTION;
	return answer;
}

int shim_seccomp_version(void)
{
	int answer = load_library();
	if (answer < 0)
		return answer;
	const struct scmp_version *version = library.version();
	return (int)(version->major << 16 | version->minor << 8 | version->micro);
}

int shim_seccomp_library(char *buffer, size_t size)
{
	Dl_info info;
	int answer = load_library();
	if (answer < 0)
		return answer;
	if (dladdr(*(void **)&library.init, &info) == 0 || info.dli_fname == NULL)
		return -ENOENT;
	size_t length = strlen(info.dli_fname);
	if (length >= size)
		return -ENAMETOOLONG;
	memcpy(buffer, info.dli_fname, length + 1);
	return (int)length;
}

int shim_seccomp_knows_arch(const char *name)
{
	int answer = load_library();
	return answer < 0 ? answer : library.arch_resolve_name(name) != 0;
}

int shim_seccomp_has_action(uint32_t action)
{
	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

int shim_seccomp_has_flags(uint32_t flags)
{
	/* The kernel looks at the flags before it reads the program: EFAULT means that it took them. */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, NULL) < 0 && errno == EFAULT;
}

"""Pipeline files: what they mean, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from salt_plugin.conf_folder import slurm_folder
from salt_plugin.config.suggest import shipped
from salt_plugin.errors import ConfigError
from salt_plugin.studies.arrays import jobs_of
from salt_plugin.studies.cluster import cluster_config, minutes
from salt_plugin.studies.elements import Element, all_elements
from salt_plugin.studies.missing import profiles_of
from salt_plugin.studies.pipeline import PipelineConfig, pipeline_config

TWO_BY_TWO = """
overrides: [input_dir=VIDEOS]
stages:
  report: {command: report, after: [probe]}
  probe: {command: probe, needs: student, overrides: ["{student}", "{teacher}", --json]}
  teacher: {method: pixel_teacher, sweep: ["method.encoder=vit_tiny,vit_small", "seed=5"]}
  student:
    method: salt
    needs: teacher
    overrides: ["method.teacher.path={teacher}", "method.encoder={teacher.method.encoder}"]
    sweep: ["optimizer.lr=1e-3,2e-3"]
"""


def pipeline(folder: Path, text: str, *changes: str) -> tuple[PipelineConfig, list[Element]]:
    file = folder / "mine.yaml"
    file.write_text(text)
    config = pipeline_config(str(file), changes)
    return config, all_elements(config, folder / "a 'study'")


def test_elements_are_the_sweep_times_what_they_are_based_on(tmp_path: Path) -> None:
    config, elements = pipeline(tmp_path, TWO_BY_TWO)
    assert list(config.stages) == ["teacher", "student", "probe", "report"]
    assert config.name == "mine"
    by_id = {one.id: one for one in elements}
    assert list(by_id) == [
        "teacher/vit_tiny-s5",
        "teacher/vit_small-s5",
        "student/vit_tiny-s5-lr0.001",
        "student/vit_tiny-s5-lr0.002",
        "student/vit_small-s5-lr0.001",
        "student/vit_small-s5-lr0.002",
        "probe/vit_tiny-s5-lr0.001",
        "probe/vit_tiny-s5-lr0.002",
        "probe/vit_small-s5-lr0.001",
        "probe/vit_small-s5-lr0.002",
        "report/all",
    ]
    student = by_id["student/vit_small-s5-lr0.002"]
    study = str(tmp_path / "a 'study'")
    quoted = study.replace("'", "\\'")
    assert student.parent == "teacher/vit_small-s5"
    assert student.arguments == [
        "train",
        "method=salt",
        "input_dir=VIDEOS",
        f"method.teacher.path='{quoted}/teacher/vit_small-s5'",
        "method.encoder=vit_small",
        "optimizer.lr=0.002",
        f"hydra.run.dir='{quoted}/{student.id}'",
    ]
    assert by_id["probe/vit_small-s5-lr0.002"].arguments == [
        "probe",
        f"{study}/{student.id}",
        f"{study}/teacher/vit_small-s5",
        "--json",
    ]


def test_an_array_waits_for_the_one_teacher_and_element_for_element_where_it_can(
    tmp_path: Path,
) -> None:
    config, elements = pipeline(tmp_path, TWO_BY_TWO)
    jobs = jobs_of(config, elements)
    assert [(job.stage, len(job.elements), job.waits) for job in jobs] == [
        ("teacher", 2, []),
        ("student", 2, ["afterok:{0}_0"]),
        ("student", 2, ["afterok:{0}_1"]),
        ("probe", 2, ["aftercorr:{1}"]),
        ("probe", 2, ["aftercorr:{2}"]),
        ("report", 1, ["afterany:{3}", "afterany:{4}"]),
    ]


def test_what_is_based_on_its_own_stage_waits_for_it_alone(tmp_path: Path) -> None:
    config, elements = pipeline(
        tmp_path, "stages: {runs: {}, probe: {command: probe, needs: runs}}"
    )
    first, probe = elements
    runs = [first._replace(name=name) for name in ("a", "b")]
    runs.append(first._replace(name="c", parent="runs/a"))
    probes = [probe._replace(name=one.name, parent=one.id) for one in runs]
    jobs = jobs_of(config, [*runs, *probes])
    assert [([one.id for one in job.elements], job.waits) for job in jobs] == [
        (["runs/a", "runs/b"], []),
        (["runs/c"], ["afterok:{0}_0"]),
        (["probe/a", "probe/b"], ["aftercorr:{0}"]),
        (["probe/c"], ["afterok:{1}"]),
    ]


def test_what_is_finished_is_not_waited_for_and_what_runs_is(tmp_path: Path) -> None:
    config, elements = pipeline(tmp_path, TWO_BY_TWO)
    active = {"teacher/vit_small-s5": "12_1", "student/vit_small-s5-lr0.001": "13_0"}
    selected = {
        "student/vit_tiny-s5-lr0.001",  # of a finished teacher
        "student/vit_small-s5-lr0.002",  # of one that runs
        "probe/vit_tiny-s5-lr0.001",
        "probe/vit_small-s5-lr0.001",
        "report/all",
    }
    jobs = jobs_of(config, elements, selected, active)
    assert [([one.name for one in job.elements], job.waits) for job in jobs] == [
        (["vit_tiny-s5-lr0.001"], []),
        (["vit_small-s5-lr0.002"], ["afterok:12_1"]),
        (["vit_tiny-s5-lr0.001"], ["afterok:{0}"]),
        (["vit_small-s5-lr0.001"], ["afterok:13_0"]),
        (["all"], ["afterany:{2}", "afterany:{3}"]),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {a: {needs: b}, b: {needs: c}, c: {needs: a}}", "a -> b -> c -> a wait for each"),
        ("stages: {teacher: {}, student: {needs: techer}}", "no stage 'techer'; did you mean 'tea"),
        ("stages: {a: {after: [z]}}", "stages.a.after: there is no stage 'z'"),
        ("stages: {}", "pipeline.stages: empty"),
        ("stages: {a: {swep: []}}", "swep: unknown key; did you mean 'sweep'"),
        ("stage: {}", "pipeline.stage: unknown key; did you mean 'stages'"),
        ("stages: {a: {command: dance}}", "expected one of train, probe"),
        ("stages: {a: {command: probe, sweep: ['seed=1,2']}}", "only stages that train"),
        ("stages: {a: {sweep: ['seed=1,1']}}", "gives s1 more than once"),
        ("stages: {a: {sweep: ['seed=[1']}}", "stages.a.sweep"),
        ("stages: {a: {overrides: ['method.teacher.path={b}']}}", "{b} in"),
        ("stages: {a: {overrides: ['seed={a.sed}'], sweep: ['seed=1']}}", "did you mean 'seed'"),
        ("stages: {a: {overrides: [hydra.run.dir=x]}}", "the study sets it"),
        ("stages: {a/b: {}}", "expected a name of letters"),
        ("stages: {code: {}}", "neither code"),
    ],
)
def test_a_pipeline_that_cannot_work_is_one_clear_error(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        pipeline(tmp_path, text)
    assert said in str(error.value)


def test_shipped_pipelines_and_profiles_are_whole(tmp_path: Path) -> None:
    assert "compare_flops" in shipped(slurm_folder())
    for profile in shipped(slurm_folder() / "clusters"):
        cluster = cluster_config(profile, {})
        for name in shipped(slurm_folder()):
            config = pipeline_config(name)
            stages = profiles_of(config, cluster)
            assert all(
                job.stage in stages for job in jobs_of(config, all_elements(config, tmp_path))
            )
    assert pipeline_config("slurm/allocation.yaml").name == "allocation"
    with pytest.raises(ConfigError, match="did you mean 'allocation'"):
        pipeline_config("alocation")


def test_profiles() -> None:
    assert minutes("1-02:30:00") == 26 * 60 + 30
    assert minutes("00:00:30") == 1
    with pytest.raises(ConfigError, match="in quotes"):
        cluster_config("slurm", {"time": 14400})  # what YAML makes of 4:00:00
    with pytest.raises(ConfigError, match="did you mean 'partition'"):
        cluster_config("slurm", {"partion": "gpu"})
    with pytest.raises(ConfigError, match="did you mean 'slurm'"):
        cluster_config("slrum", {})
    with pytest.raises(ConfigError, match=r"mine\.yml: no such file; .*: gpu_node, local, slurm"):
        cluster_config("mine.yml", {})
    config = pipeline_config("allocation")
    config.stages["train"].resources = {"mem_gb": 4}
    cluster = cluster_config("slurm", {})
    with pytest.raises(ConfigError, match=r"resources\.mem_gb"):
        profiles_of(config, cluster)


@pytest.mark.parametrize(
    ("sbatch", "said"),
    [
        ({"signal": "USR1@60"}, r"cluster\.sbatch\.signal: .*signal_delay_s says when"),
        ({"no_requeue": True}, r"cluster\.sbatch\.no_requeue: .*queued again"),
        ({"array": "0-3"}, r"cluster\.sbatch\.array: .*array_parallelism"),
        ({"output": "log"}, r"cluster\.sbatch\.output: .*in the study's folder"),
        ({"partition": "gpu"}, r"cluster\.sbatch\.partition: give cluster\.partition instead"),
        ({"cpus-per-task": 2}, r"give cluster\.cpus_per_task instead"),
    ],
)
def test_options_of_sbatch_that_a_profile_cannot_give(sbatch: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cluster_config("slurm", {"sbatch": sbatch})


def test_gpus_with_a_type_and_options_of_sbatch_on_top_of_others(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("gpus_per_node: a100:4\nnodes: 2\nsbatch: {mail-user: me, exclusive: true}\n")
    cluster = cluster_config(str(file), {"sbatch": {"hold": True}})
    assert cluster.devices == 8
    assert cluster.sbatch == {"mail-user": "me", "exclusive": True, "hold": True}
    with pytest.raises(ConfigError, match=r"gpus_per_node=a100: expected a number, or a type"):
        cluster_config(str(file), {"gpus_per_node": "a100"})

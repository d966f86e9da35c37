from benchmarks.study import study

if __name__ == "__main__":
    for r in study(1.0):
        print(r.what, "|", r.case, "|", r.ours, r.theirs, round(r.ratio, 3), r.target, r.met, r.note, flush=True)

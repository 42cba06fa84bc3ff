"""Before a site goes live: the node's answers against the site's own labels, as a report that a committee reads.

===================== =========================================================================================
``validating.py``     the whole line, from labels and results to what is said: read this first
``labels.py``         the table of labels
``scores_file.py``    results that ``ich-node score --json`` printed
``answers.py``          answers of this node, from its database; ``node_results.py`` with what its reports add
``matching.py``       labels and results together; what is left out, and why
``figures.py``        sensitivity, specificity and area under the curve
``groups.py``         the same by station, slice thickness, age and sex
``predictive.py``     predictive values and alerts at a prevalence
``proposal.py``       thresholds on the site's own studies
``operating_points.py`` what each threshold would do
``worst.py``          which studies are shown; ``pictures.py`` their slices, ``contact_sheet.py`` all together
``wording.py``        figures in words; ``markup.py`` tables and ``charts.py`` charts
``sections.py``       parts of the report, as ``group_sections.py`` and ``threshold_sections.py``
``page.py``           the report
``as_json.py``        the same for programs, and the proposed thresholds
===================== =========================================================================================
"""

"use strict";
(function () {
  var item = JSON.parse(document.getElementById("effect-map-item").textContent);
  Bokeh.set_log_level("warn");
  Bokeh.embed.embed_item(item, "effect-map").then(function (views) {
    var view = Array.isArray(views) ? views[0] : views.roots ? views.roots[0] : views;
    var documents = Bokeh.documents;
    var doc = (view && view.model && view.model.document) || documents[documents.length - 1];
    var inputs = document.querySelectorAll("#measure input");
    var names = Array.prototype.map.call(inputs, function (input) { return input.value; });
    var plot = doc.roots()[0];
    var places = plot.renderers.filter(function (r) { return r.tags.indexOf("places") >= 0; });

    function show(measure) {
      var mapper = doc.get_model_by_name("mapper-" + measure);
      places.forEach(function (renderer) {
        [renderer.glyph, renderer.hover_glyph, renderer.muted_glyph].forEach(function (glyph) {
          if (glyph && glyph.fill_color !== undefined) {
            glyph.fill_color = { field: measure, transform: mapper };
          }
        });
      });
      names.forEach(function (name) {
        doc.get_model_by_name("bar-" + name).visible = name === measure;
      });
    }
    inputs.forEach(function (input) {
      input.addEventListener("change", function () { if (input.checked) { show(input.value); } });
      if (input.checked && input.value !== "estimate") { show(input.value); }
    });
    document.getElementById("effect-map").dataset.ready = "yes";
  });
})();
